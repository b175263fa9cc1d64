"""The arguments of a command line: plugins, Hydra's overrides, and choices that do not exist."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deepfake_cls.config import conf_dir
from deepfake_cls.data import source
from deepfake_cls.errors import InputError
from deepfake_cls.validation import register_schemas

# The schema has no keys below these: they depend on the network, augmentation or logger.
FREE_KEYS = ("augment.", "model.args.", "model.args=", "logger.args.", "logger.args=")
CLEAR_ARGS = ("~model.args", "+model.args={}")
# Hydra's flags that are followed by a value.
VALUE_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--info", "-i")


def split_positional(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into positional arguments and all others.

    Positional are the arguments without ``=`` that are neither flags nor deletions of Hydra (``~key``), and all
    arguments after ``--``.
    """
    before, after = [*arguments], list[str]()
    if "--" in before:
        end = before.index("--")
        before, after = before[:end], before[end + 1 :]
    positional, others = list[str](), list[str]()
    for previous, text in zip(["", *before], before, strict=False):
        is_path = "=" not in text and not text.startswith("-") and (not text.startswith("~") or "/" in text)
        (positional if is_path and previous not in VALUE_FLAGS else others).append(text)
    return positional + after, others


def refuse_ambiguous(schema: type[Any], positional: str, values: Sequence[str], arguments: Sequence[str]) -> None:
    """Refuse files whose name looks like ``KEY=VALUE``, and keys that exclude positional arguments.

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


def refuse_other_experiments(entry: str, arguments: Sequence[str]) -> None:
    """Raise InputError for two experiments at once, and for an experiment of another entry point."""
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
        raise InputError(f"experiment={names[0]}: belongs to python -m deepfake_cls.{expected}.")


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Refuse unknown files of a group in one line; Hydra's message is long and does not mention plugins.

    Raises:
        InputError: With the available files.
    """
    if any(text.startswith(("--config-dir", "-cd", "hydra.searchpath")) for text in arguments):
        return  # the file may be in a folder of the user's own
    for argument in arguments:
        group, _, values = argument.lstrip("+").partition("=")
        options = options_of(group)
        for value in values.split(",") if options else []:
            # A value that is no plain name, such as glob(*), is left to Hydra.
            if not value.replace("-", "_").isidentifier() or value in (*options, "null"):
                continue
            if group == "data":
                source[value]  # refuses unknown names, and mentions plugins
            message = f"{group}={value}: unknown; expected one of {', '.join(options)}."
            if group == "model":
                message += f" A network of your own needs plugins=[MODULE] and model.name={value}."
            raise InputError(message)


def options_of(group: str) -> list[str]:
    """The options of a configuration group, files or registered layouts; none if there is no such group."""
    if group == "data":
        return [*source]
    if not group.isalpha():
        return []
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
