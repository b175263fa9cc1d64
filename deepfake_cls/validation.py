"""Register the schemas with Hydra, and check the configurations that Hydra composes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from deepfake_cls.config import SCHEMAS, RecipeConfig, TrainConfig, TrainerConfig
from deepfake_cls.data import source
from deepfake_cls.errors import InputError, reason
from deepfake_cls.schema import check

Schema = TypeVar("Schema")
PATHS = ("run_dir", "checkpoint", "init", "output", "runs")
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
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    for key in ("experiment", "sweep"):  # they describe a sweep and are not settings of a run
        values.pop(key, None)
    data = values.pop("data", None)
    for key in PATHS:
        if str(values.get(key) or "").startswith("~"):
            values[key] = str(Path(values[key]).expanduser())
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
        instance: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(values)))
    except MissingMandatoryValue as error:
        key = f"{prefix}{error.full_key}"
        raise InputError(f"{key}: missing; give it on the command line, as in {key}=VALUE.") from error
    except OmegaConfBaseException as error:
        _refuse_scalars(schema, values, prefix)
        keys = ", ".join(entry.name for entry in fields(schema))  # type: ignore[arg-type]  # a dataclass
        raise InputError(f"{prefix}{error.full_key}: {reason(error)} (known keys: {keys})") from error
    check(instance, prefix)
    return instance  # type: ignore[no-any-return]  # OmegaConf does not say which type


def _refuse_scalars(schema: type[Any], values: Mapping[Any, Any], prefix: str) -> None:
    """Refuse a number or a string where a list is expected, and show how to write it."""
    for entry in fields(schema):
        value = values.get(entry.name)
        if "list" in str(entry.type) and isinstance(value, int | float | str):
            key, rule = f"{prefix}{entry.name}", entry.metadata.get("rule")
            if rule is not None and not rule.passes([value]):
                raise InputError(f"{key}={value}: expected {rule.expected}.")
            raise InputError(f"{key}={value}: expected a list; write '{key}=[{value}]'.")


register_schemas()
