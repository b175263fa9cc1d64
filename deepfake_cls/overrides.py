"""The arguments of a command line: plugins, Hydra's overrides, and advice for those that are wrong."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from deepfake_cls.commands import preset
from deepfake_cls.config import SCHEMAS, conf_dir
from deepfake_cls.data import source
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override
from deepfake_cls.validation import keys_of, register_schemas, unknown_key

# The schema has no keys below these: they depend on the network, augmentation, logger or data.
FREE_KEYS = (
    *("augment.", "model.args.", "model.args=", "logger.args.", "logger.args="),
    *("data.class_map.", "data.class_map=", "data.split_map.", "data.split_map="),
)
CLEAR_ARGS = ("~model.args", "+model.args={}")
# Hydra's flags that are followed by a value.
VALUE_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
    *("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"),
)


def split_positional(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into positional arguments and all others, flags first, as argparse needs them.

    Positional are the arguments without ``=`` that are neither flags nor deletions of Hydra (``~key``), and all
    arguments after ``--``.
    """
    before, after = [*arguments], list[str]()
    if "--" in before:
        end = before.index("--")
        before, after = before[:end], before[end + 1 :]
    flags, others = split_flags(before)
    overrides = [text for text in others if "=" in text or (text.startswith("~") and "/" not in text)]
    return [text for text in others if text not in overrides] + after, flags + overrides


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into Hydra's flags with their values, and all others."""
    flags, others = list[str](), list[str]()
    for previous, text in zip(["", *arguments], arguments, strict=False):
        (flags if text.startswith("-") or previous in VALUE_FLAGS else others).append(text)
    return flags, others


def refuse_ambiguous(schema: type[Any], positional: str, values: Sequence[str], arguments: Sequence[str]) -> None:
    """Refuse files that look like ``KEY=VALUE``, keys after ``--``, and keys that exclude positional arguments.

    Args:
        schema: The command's schema; the metadata ``excludes`` of its field ``positional`` is a pattern of overrides.
        positional: The key of the positional arguments.
        values: The positional arguments.
        arguments: The other arguments.

    Raises:
        InputError: If there is such a file or key.
    """
    keys = {entry.name: entry for entry in fields(schema)}
    for text in arguments:
        key = re.split("[.@=]", text.lstrip("+~"))[0]
        if key not in {*keys, "hydra"} and "=" in text and Path(text).exists():
            raise InputError(f"{text}: is a file, but arguments with = are KEY=VALUE; put it at the end, after --.")
        if values and re.match(keys[positional].metadata.get("excludes", "$"), text.lstrip("+~")):
            raise InputError(f"{text}: cannot be combined with {values[0]}; give either {positional} or {key}=.")
    for text in values:
        if "=" in text and re.split("[.@=]", text.lstrip("+~"))[0] in keys and not Path(text).exists():
            raise InputError(f"{text}: does not exist; keys go before --.")


def plugin_modules(arguments: Sequence[str]) -> list[str]:
    """The modules in ``plugins=[a,b]``."""
    values = [text.split("=", 1)[1].strip("[]") for text in arguments if text.lstrip("+").startswith("plugins=")]
    return [module.strip(" '\"") for value in values for module in value.split(",") if module.strip()]


def import_plugins(modules: Sequence[str]) -> None:
    """Import the user's modules; the current folder is searched too.

    Raises:
        InputError: If one cannot be imported.
    """
    folder = str(Path.cwd())
    if modules and not {folder, ""} & {*sys.path}:
        sys.path.append(folder)
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f"plugins=[{module}]: cannot be imported ({error}); give the name of a module in the current folder or"
                " of an installed one, such as my_package.my_module."
            ) from error
    if modules:
        register_schemas()


def to_hydra(arguments: Sequence[str]) -> list[str]:
    """Turn the arguments of a command line into Hydra's overrides.

    If ``model.name`` differs from the name in the chosen file, the ``args`` of the file are dropped: Hydra alone would
    merge them with those of the command line.
    """
    overrides = [f"++{text}" if text.startswith(FREE_KEYS) else text for text in arguments]
    options = [text.split("=", 1)[1] for text in arguments if text.startswith("model=")]
    names = [text.split("=", 1)[1] for text in arguments if text.startswith("model.name=")]
    file = conf_dir() / "model" / f"{(options or ['resnet'])[-1]}.yaml"
    if names and not (file.is_file() and OmegaConf.load(file).name == names[-1]) and "~model.args" not in arguments:
        first = next(i for i, text in enumerate(arguments) if text.startswith(("model.name=", "model.args")))
        overrides[first:first] = CLEAR_ARGS
    return overrides


def from_hydra(overrides: Sequence[str]) -> list[str]:
    """The arguments of a command line from which :func:`to_hydra` and Hydra made these overrides."""
    added = {f"{CLEAR_ARGS[0]}=null", *CLEAR_ARGS}
    free = tuple(f"++{key}" for key in FREE_KEYS)
    return [text.removeprefix("++") if text.startswith(free) else text for text in overrides if text not in added]


def task_overrides() -> list[str]:
    """The overrides of the running job, as on the command line; an interpolation such as ``${seed}`` stays as it is."""
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return from_hydra(overrides)


def refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Raise InputError for arguments that start with ``-`` and are unknown, lack a value, or exclude another."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            flags = get_args_parser().parse_args([*arguments])
    except SystemExit:  # argparse has written its usage and the error
        file = next((text for text in arguments if text.startswith("-") and Path(text).exists()), None)
        if file is not None:
            hint = f"{file}: is a file, but arguments that start with - are options; put it at the end, after --."
            raise InputError(hint) from None
        error = message.getvalue().strip().rpartition("error: ")[2]
        raise InputError(f"{error}; --help lists the keys.") from None
    if flags.multirun + (flags.cfg is not None) + (flags.info is not None) > 1:
        raise InputError("-m, --cfg and --info: give one of them.")


def refuse_other_experiments(entry: str, arguments: Sequence[str]) -> None:
    """Refuse two experiments at once, an experiment of another entry point, and a key that the experiment varies.

    Hydra prefers the command line: a value of a varied key would replace those of all arms.

    Raises:
        InputError: If there is such an argument.
    """
    values = [text.split("=")[1] for text in arguments if text.lstrip("+").startswith("experiment=")]
    names = [name for value in values for name in value.split(",")]
    if not names or names == ["null"]:
        return
    if len(names) > 1:
        raise InputError(f"experiment={','.join(names)}: one at a time; call the command once for each.")
    file = conf_dir() / "experiment" / f"{names[0]}.yaml"
    if not file.is_file():
        return  # from a folder of the user's own, or unknown: Hydra lists the available ones
    expected = OmegaConf.load(file).experiment.entry
    if expected != entry:
        raise InputError(f"experiment={names[0]}: belongs to deepfake-cls {expected}.")
    varied = varied_keys(file)
    for text in arguments:
        if key_of(text) in varied:
            raise InputError(f"{text}: experiment={names[0]} varies {key_of(text)}; omit this key.")


def varied_keys(file: Path) -> set[str]:
    """The keys that an experiment varies: those of its sweeper except the seed, and those that its arms set.

    Args:
        file: The experiment, in ``conf/experiment``.
    """
    params: Any = OmegaConf.to_container(OmegaConf.load(file).hydra.sweeper.params)  # without resolving ${sweep.lr}
    arms = [file.parents[1] / "arm" / f"{name.strip()}.yaml" for name in str(params.get("arm", "")).split(",")]
    trees: list[Any] = [OmegaConf.to_container(OmegaConf.load(arm)) for arm in arms if arm.is_file()]
    return ({*params} | {key for tree in trees for key in _leaf_keys(tree)}) - {"seed"}


def key_of(text: str) -> str:
    """The key of an override: ``channels`` of ``++channels=RGB``."""
    return text.lstrip("+~").partition("=")[0]


def _leaf_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of the values in nested dicts."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaf_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def refuse_wrong_form(entry: str, arguments: Sequence[str]) -> None:
    """Refuse arguments without a key, wrong groups, and deletions of keys that need a value.

    Hydra answers an absent key, and a group that is null or a number, by a traceback. After a deletion, the schema's
    default would silently be used.

    Raises:
        InputError: With the argument and what was expected.
    """
    groups = groups_of(entry)
    for text in split_flags(arguments)[1]:
        key, _, value = text.lstrip("+~").partition("=")
        key = key.partition("@")[0]
        if not key and "=" in text:
            raise InputError(f"{text}: expected KEY=VALUE; --help lists the keys.")
        if "=" in text and options_of(key) and key not in _known_keys(entry, arguments):
            raise InputError(unknown_key(key, _known_keys(entry, arguments)))
        if key in groups and re.fullmatch(r"null|[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", value, re.IGNORECASE):
            raise InputError(f"{text}: expected one of {', '.join(options_of(key))}.")
        free = key in groups or key.startswith(FREE_KEYS) or f"{key}=" in FREE_KEYS
        if text.startswith("~") and not free and key in _known_keys(entry, arguments):
            raise InputError(f"{text}: cannot be deleted; write {key}=VALUE.")


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Refuse unknown files of a group in one line; Hydra's message is long and does not mention plugins.

    Raises:
        InputError: With the available files.
    """
    if any(text.startswith(("--config-dir", "-cd", "hydra.searchpath")) for text in arguments):
        return  # the file may be in a folder of the user's own
    for argument in arguments:
        group, equals, values = argument.lstrip("+").partition("=")
        options = options_of(group) if equals else []
        for value in values.split(",") if options else []:
            # A value that is no plain name, such as glob(*), is left to Hydra.
            if not re.fullmatch(r"[\w-]*", value) or value in (*options, "null"):
                continue
            message = f"{group}={value}: unknown; expected one of {', '.join(options)}."
            if group == "data":
                message += " A layout of your own needs plugins=[MODULE]."
            if group == "model":
                message += f" A network of your own needs plugins=[MODULE] and model.name={value}."
            raise InputError(message)


def explain(entry: str, arguments: Sequence[str], error: Exception) -> str:
    """Say in one line which argument is wrong, and how to mend it.

    Hydra's messages take several lines, and advise what :func:`deepfake_cls.validation.validate` then refuses.

    Args:
        entry: Name of the command.
        arguments: Of its command line, without positional ones.
        error: The error of Hydra or OmegaConf.
    """
    known = _known_keys(entry, arguments)
    for text in split_flags(arguments)[1]:
        advice = _advice(text, known, str(error))
        if advice is not None:
            return advice
    lines = str(error).partition("\nConfig search path")[0].splitlines()
    return " ".join(line.strip() for line in lines if not line.startswith("To append to your config"))


def _known_keys(entry: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The keys of a command with their types, with those of the chosen data layout; None for groups without a type."""
    options = [text.split("=", 1)[1] for text in arguments if text.startswith("data=")]
    option = (options or ["synthetic"])[-1]
    layout = option if option in source else preset(option).get("name", "synthetic")
    groups = groups_of(entry)
    data = keys_of(source[layout].Config, "data.") if "data" in groups else {}
    return dict.fromkeys(groups) | keys_of(SCHEMAS[entry]) | data


def _advice(text: str, known: Mapping[str, Any], error: str) -> str | None:
    """What is wrong with an argument; None if it is right, or if the error is about another one."""
    try:
        parsed: Override = OverridesParser.create().parse_override(text)
    except HydraException:
        key, _, value = text.partition("=")
        quoted = shlex.quote(override(key, value))
        return f"{text}: Hydra cannot read the value; close brackets and quotes, or write {quoted} for text."
    key, value = parsed.key_or_group, text.partition("=")[2]
    if "dict" in str(known.get(key)) and (text in error or f"'{key}'" in error):
        names = "{path: NAME, label: NAME, split: NAME, group: NAME}" if key == "data.columns" else "{NAME: VALUE}"
        return f"{text}: expected a mapping; write '{key}={names}'."
    if key.startswith(("hydra", *FREE_KEYS)) or f"{key}=" in FREE_KEYS:
        return None
    if key == "launcher" and "hydra/launcher" in error:
        return f"{text}: its package is not installed; install it with: pip install 'deepfake-cls[{value}]'."
    if key not in known:
        return unknown_key(key, known) if key.split(".")[0] in error else None
    if f"'{key}'" not in error and text not in error and f"for {key}." not in error:
        return None
    advice, kind = None, str(known[key])
    if parsed.is_add():
        advice = f"{key} has a value; write {text.lstrip('+')}"
    elif parsed.is_sweep_override() and "list" in kind:
        advice = f"expected a list; write '{key}=[{value}]'"
    elif parsed.is_sweep_override():
        as_text = f"; write {shlex.quote(override(key, value))} for text" if "str" in kind else ""
        advice = f"several values need -m, which runs a job for each{as_text}"
    elif options_of(key):
        advice = f"expected one of {', '.join(options_of(key))}"
    return advice and f"{text}: {advice}."


def groups_of(entry: str) -> list[str]:
    """The configuration groups of a command, from the defaults of its file in ``conf/``."""
    defaults: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{entry}.yaml"), resolve=False)
    groups = list[str]()
    for item in defaults["defaults"]:
        if isinstance(item, dict):
            groups += item
        elif item in SCHEMAS:  # report.yaml builds on train.yaml
            groups += groups_of(item)
    return groups


def options_of(group: str) -> list[str]:
    """The options of a configuration group, files and registered layouts; none if there is no such group."""
    if not group.isalpha():
        return []
    files = [file.stem for file in (conf_dir() / group).glob("*.yaml")]
    return sorted([*files, *(source if group == "data" else ())])
