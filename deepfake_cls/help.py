"""The text of ``deepfake-cls COMMAND --help``: groups with their options, keys with their values and descriptions."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deepfake_cls.config import SCHEMAS, LoggerConfig, ModelConfig, RecipeConfig, TrainerConfig
from deepfake_cls.config_runs import CacheFolderConfig
from deepfake_cls.data import source
from deepfake_cls.overrides import options_of

GROUPS = {"model.": ModelConfig, "recipe.": RecipeConfig, "trainer.": TrainerConfig, "logger.": LoggerConfig}
POSITIONAL = {"predict": "[PATH ...] ", "compare": "RUN RUN ... "}  # arguments without =, by command
WIDTH = 120
COLUMN = 36  # where descriptions begin


def command_help(*, _root_: DictConfig) -> str:
    """Hydra's help template for the composed command; ``conf/hydra_quiet.yaml`` calls it as a resolver."""
    name, choices = _root_.hydra.job.config_name, _root_.hydra.runtime.choices
    options = {group: options_of(group) for group in sorted(choices)}
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(_root_, [entry.name for entry in fields(SCHEMAS[name])]))
    layout = values.get("data", {}).get("name")
    schemas = {**GROUPS, "": SCHEMAS[name], "data.": source[layout].Config if layout else CacheFolderConfig}
    return "\n".join(
        [
            f"usage: deepfake-cls {name} {POSITIONAL.get(name, '')}[KEY=VALUE ...]"
            + " [GROUP=OPTION ...]" * any(options.values()),
            *(["       -m KEY=VALUE,VALUE runs a job for each value"] if "launcher" in choices else []),
            *(["\ngroups and their options:"] if any(options.values()) else []),
            *(_row(group, ", ".join(names)) for group, names in options.items() if names),
            "\nkeys and their values:",
            *(_row(f"{key}={value}", text) for key, value, text in _keys(schemas, values)),
        ]
    ).replace("$", "$$")  # Hydra substitutes $NAME


def _row(name: str, text: str) -> str:
    """Name and text in two columns."""
    indent = " " * COLUMN
    text = textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    row = f"  {name}\n{text}" if len(name) > COLUMN - 4 else f"  {name}".ljust(COLUMN) + text[COLUMN:]
    return row.rstrip()


def _keys(schemas: dict[str, type[Any]], values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, value and description of each value, groups last; ``schemas`` are by prefix, such as ``data.``."""
    texts = descriptions(schemas.get(prefix, object))
    keys = [key for key in {**texts, **values} if key in values]
    for key in sorted(keys, key=lambda key: isinstance(values[key], dict)):
        value = values[key]
        if isinstance(value, dict) and value:
            yield from _keys(schemas, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value), texts.get(key, "")


def descriptions(schema: type[Any]) -> dict[str, str]:
    """The descriptions of a dataclass's fields, from the section ``Attributes`` of its docstring and its bases'."""
    texts: dict[str, str] = {}
    for base in schema.__mro__:
        section = (inspect.getdoc(base) or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            texts.setdefault(name, " ".join(text.split()))
    return texts
