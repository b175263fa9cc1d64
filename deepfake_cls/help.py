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

from deepfake_cls.config import SCHEMAS, LoggerConfig, ModelConfig, RecipeConfig, TrainerConfig, conf_dir
from deepfake_cls.config_runs import CacheFolderConfig
from deepfake_cls.data import source
from deepfake_cls.notation import value_text
from deepfake_cls.overrides import options_of

GROUPS = {"model.": ModelConfig, "recipe.": RecipeConfig, "trainer.": TrainerConfig, "logger.": LoggerConfig}
POSITIONAL = {"predict": "[PATH ...] ", "compare": "RUN RUN ... "}  # arguments without =, by command
WIDTH = 120
COLUMN = 36  # where descriptions begin


def command_help(*, _root_: DictConfig) -> str:
    """Hydra's help template for the composed command; ``conf/hydra_quiet.yaml`` calls it as a resolver."""
    name, choices = _root_.hydra.job.config_name, _root_.hydra.runtime.choices
    keys = [entry.name for entry in fields(SCHEMAS[name])]
    options = {group: options_of(group) for group in sorted(choices)}
    groups = " [GROUP=OPTION ...]" * any(options.values())
    usage, ending = [f"usage: deepfake-cls {name} {POSITIONAL.get(name, '')}[KEY=VALUE ...]{groups}"], list[str]()
    if name == "report":
        keys, options = ["plugins", *vars(SCHEMAS[name])["__annotations__"]], {}
        ending = ["\nAll keys of train select the runs of the tables: deepfake-cls train --help"]
    elif "launcher" in choices:
        usage += ["       -m KEY=VALUE,VALUE runs a job for each value"]
    values: Any = OmegaConf.to_container(OmegaConf.masked_copy(_root_, keys))
    layout = values.get("data", {}).get("name")
    schemas = {**GROUPS, "": SCHEMAS[name], "data.": source[layout].Config if layout else CacheFolderConfig}
    comments = {f"{group}.{key}": text for group in choices for key, text in _comments(group, choices[group]).items()}
    return "\n".join(
        [
            *usage,
            *(["\ngroups and their options:"] if any(options.values()) else []),
            *(_row(group, ", ".join(names)) for group, names in options.items() if names),
            "\nkeys and their values:",
            *(_row(f"{key}={value}", text or comments.get(key, "")) for key, value, text in _keys(schemas, values)),
            *ending,
        ]
    ).replace("$", "$$")  # Hydra substitutes $NAME


def _comments(group: str, option: str | None) -> dict[str, str]:
    """The comments after the values of a file in ``conf/``, by dotted key; they describe keys that have no schema."""
    file, texts, parents = conf_dir() / group / f"{option}.yaml", dict[str, str](), list[str]()
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        if match := re.match(r"((?:  )*)(\w+):[^#]*(?:# (.*))?", line):
            parents = [*parents[: len(match[1]) // 2], match[2]]
            texts[".".join(parents)] = match[3] or ""
    return texts


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
        if isinstance(value, dict) and value and prefix != "data.":
            yield from _keys(schemas, value, f"{prefix}{key}.")
        elif isinstance(value, dict):  # in the group data, such as class_map: its keys are names of the data's
            yield f"{prefix}{key}", value_text(value), texts.get(key, "")
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
