"""Register the schemas with Hydra, and check the configurations that Hydra composes."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from deepfake_cls.config import SCHEMAS, RecipeConfig, TrainConfig, TrainerConfig
from deepfake_cls.data import source
from deepfake_cls.errors import InputError, reason
from deepfake_cls.notation import literal, override
from deepfake_cls.schema import Rule, check

Schema = TypeVar("Schema")
PATHS = ("run_dir", "checkpoint", "init", "fuse", "output", "runs")
GROUPS = {"data", "model", "augment", "recipe", "trainer", "logger"}


def register_schemas() -> None:
    """Store every key with its default for Hydra, so that the files of ``conf/`` contain only what differs.

    The nodes have no types: :func:`validate` checks types and ranges, and its messages name what was expected.
    """
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        # report.yaml builds on train.yaml, so its schema adds only the keys that train does not have.
        inherits = issubclass(schema, TrainConfig) and schema is not TrainConfig
        inherited = {entry.name for entry in fields(TrainConfig)} if inherits else set()
        store.store(name=f"schema_{name}", node=_defaults(schema, inherited | GROUPS))
    store.store(name="schema_recipe", node=_defaults(RecipeConfig))
    store.store(name="schema_trainer", node=_defaults(TrainerConfig))
    for name in source:
        store.store(group="data", name=name, node={**_defaults(source[name].Config), "name": name})


def _defaults(schema: type[Any], without: Collection[str] = ()) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.structured(schema))
    return {key: value for key, value in values.items() if key not in without}


def validate(config: DictConfig, schema: type[Schema]) -> Schema:
    """Build an instance of an entry point's schema from a composed configuration.

    Its ``data`` is an instance of the chosen layout's schema.

    Raises:
        InputError: If a key is unknown or missing, or a value is of another type or out of range.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {reason(error)}; in ${{KEY}}, KEY is another key.") from error
    assert isinstance(values, dict)
    for key in ("experiment", "sweep"):  # they describe a sweep and are not settings of a run
        values.pop(key, None)
    data = values.pop("data") if "name" in (values.get("data") or {}) else None
    for key in PATHS:
        if str(values.get(key) or "").startswith("~"):
            values[key] = os.path.expanduser(values[key])  # noqa: PTH111  # accepts names of unknown users
    checked = build(schema, values)
    if data is not None:
        checked.data = build(source[data.get("name")].Config, data, "data.")  # type: ignore[attr-defined]  # any schema
    return checked


def build(schema: type[Schema], values: Mapping[Any, Any], prefix: str = "") -> Schema:
    """Build an instance of a schema; absent keys have their default. Messages put ``prefix`` before each key.

    Raises:
        InputError: If a key is unknown or missing, or a value is of another type or out of range.
    """
    try:
        # The values are resolved, so a ${ that they still contain is text.
        instance: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), literal(values)))
    except MissingMandatoryValue as error:
        key = f"{prefix}{error.full_key}"
        raise InputError(f"{key}: missing; give it on the command line, as in {key}=VALUE.") from error
    except OmegaConfBaseException as error:
        _refuse_scalars(schema, values, prefix)
        _refuse_type(schema, values, prefix, error.full_key or "")
        key = f"{prefix}{error.full_key}"
        if not isinstance(error, ValidationError):
            raise InputError(unknown_key(key, [f"{prefix}{known}" for known in keys_of(schema)])) from error
        raise InputError(f"{key}: {reason(error)}") from error
    check(instance, prefix)
    return instance  # type: ignore[no-any-return]  # OmegaConf does not say which type


def keys_of(schema: type[Any], prefix: str = "") -> dict[str, Any]:
    """The keys of a schema with their types, those of its groups dotted: ``lr``, ``trainer``, ``trainer.device``."""
    keys: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(schema).items():
        keys[f"{prefix}{name}"] = kind
        keys |= keys_of(kind, f"{prefix}{name}.") if isinstance(kind, type) and is_dataclass(kind) else {}
    return keys


def unknown_key(key: str, known: Collection[str]) -> str:
    """The message for an unknown key: who has it, or which of the known keys was probably meant."""
    if key.startswith("data.") and not any(other.startswith("data") for other in known):
        return f"{key}: unknown key; this command takes no data set."
    layouts = [name for name in source if key in keys_of(source[name].Config, "data.")]
    commands = [name for name, schema in SCHEMAS.items() if key in keys_of(schema)]
    if layouts:
        return f"{key}: unknown key of this data layout; it is a key of data={' and data='.join(layouts)}."
    if commands:
        return f"{key}: unknown key of this command; it is a key of {' and '.join(commands)}."
    if key.startswith("data."):
        known = {*known}.union(*(keys_of(source[name].Config, "data.") for name in source))
    names = difflib.get_close_matches(_name(key), {*map(_name, known)}, n=1, cutoff=0.75)
    similar = [other for other in sorted(known) if _name(other) in names]
    if similar:
        best = max(similar, key=lambda other: difflib.SequenceMatcher(None, key, other).ratio())
        return f"{key}: unknown key; did you mean {best}?"
    siblings = [other for other in known if other.rpartition(".")[0] == key.rpartition(".")[0]]
    return f"{key}: unknown key (known keys: {', '.join(siblings)})"


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _refuse_scalars(schema: type[Any], values: Mapping[Any, Any], prefix: str) -> None:
    """Refuse a number or a string where a list is expected, and show how to write it."""
    for entry in fields(schema):
        value = values.get(entry.name)
        if "list" not in str(entry.type) or not isinstance(value, int | float | str):
            continue
        key, rule = f"{prefix}{entry.name}", entry.metadata.get("rule")
        words = [word.strip() for word in str(value).strip(" []").split(",")]
        items = [int(word) if word.isdecimal() else word for word in words]
        # One number for a size is the side of a square.
        passing = [one for one in (items, items * 2) if rule is None or _passes(rule, one)]
        if rule is not None and not passing:
            raise InputError(f"{override(key, value)}: expected {rule.expected}.")
        raise InputError(f"{override(key, value)}: expected a list; write '{override(key, passing[0])}'.")


def _passes(rule: Rule, value: Any) -> bool:
    try:
        return rule.passes(value)
    except TypeError:  # such as a word in a list of numbers
        return False


def _refuse_type(schema: type[Any], values: Mapping[Any, Any], prefix: str, full_key: str) -> None:
    """Refuse a value of another type than its key's, and say what was expected."""
    value: Any = values
    rule: Rule | None = None
    key = full_key.partition("[")[0]  # k for k[0]
    for name in key.split("."):
        entries = {entry.name: entry for entry in fields(schema)} if is_dataclass(schema) else {}
        if name not in entries or not isinstance(value, Mapping):
            return
        value, rule = value.get(name), entries[name].metadata.get("rule")
        schema = typing.get_type_hints(schema)[name]
    nouns = {
        "dict": "a mapping such as {a:1}",
        "list": "a list",
        "int": "an integer",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
    }
    expected = next((noun for word, noun in nouns.items() if word in str(schema)), "another type")
    if rule is not None and (rule.expected.startswith("a ") or "[" in full_key):
        expected = rule.expected  # it names the type too
    elif rule is not None:
        expected = f"{expected}, {rule.expected}"
    raise InputError(f"{override(f'{prefix}{key}', value)}: expected {expected}.")


register_schemas()
