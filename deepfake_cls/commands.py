"""The commands that the program prints. A shell and Hydra read each back as the settings that it was made of."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepfake_cls.config import SCHEMAS, conf_dir
from deepfake_cls.data.sources import source
from deepfake_cls.notation import override
from deepfake_cls.run_key import conf_file, defaults_of

SHARED = ("plugins", "data", "trainer")  # keys that every command has
OF_ONE_RUN = ("seed", "run_dir", "force", "checkpoint")  # keys that other runs do not take over
AUGMENTS = ("paper", "best", "robust")  # files of conf/augment
SCALED = ("width", "epochs", "lr")  # keys that scale sets


def command(entry: str, arguments: Sequence[str] = ()) -> str:
    """A command for the shell: ``deepfake-cls train 'data.size=[96,96]'``."""
    return shlex.join(["deepfake-cls", entry, *arguments])


def label_command(checkpoint: str | Path, config: Mapping[str, Any]) -> str:
    """The command that labels the user's own images; PHOTOS stands for them.

    Other than ``predict_command`` it omits ``trainer.threads`` and ``trainer.progress``, which change no answer.
    """
    data = {key: value for key, value in config.get("data", {}).items() if key in ("cache", "workers")}
    cached = [override(f"data.{key}", value) for key, value in data.items() if value is not None]
    kept = {key: config[key] for key in ("plugins", "trainer") if key in config}
    others = overrides_of("predict", kept)
    others = [text for text in others if not text.startswith(("trainer.threads=", "trainer.progress="))]
    return command("predict", ["PHOTOS", override("checkpoint", checkpoint), *cached, *others])


def predict_command(checkpoint: str | Path, config: Mapping[str, Any]) -> str:
    """The command that labels images of the same data."""
    return command("predict", [override("checkpoint", checkpoint), *shared_overrides("predict", config)])


def shared_overrides(entry: str, config: Mapping[str, Any]) -> list[str]:
    """The overrides with the data, plugins and hardware of another command's configuration."""
    return overrides_of(entry, {key: config[key] for key in SHARED if key in config})


def overrides_of(entry: str, config: Mapping[str, Any], omit: Sequence[str] = OF_ONE_RUN) -> list[str]:
    """The overrides that give a command this configuration: all that differs from the defaults.

    Args:
        entry: Name of the command.
        config: A configuration as nested dicts, or a part of one. Keys that the command lacks are omitted.
        omit: Further keys to omit.
    """
    defaults = defaults_of(SCHEMAS[entry])
    config = {key: value for key, value in config.items() if key in defaults}
    groups = {"data": _data, "model": _model, "augment": _augment, "logger": _logger}
    overrides = []
    if all(key in config for key in SCALED):
        scale = max(("small", "tiny", "reference"), key=lambda name: _matches(name, config))
        overrides += [] if scale == "small" else [f"scale={scale}"]
        defaults |= _scale(scale)
    for key, value in config.items():
        if key in omit:
            continue
        if key in groups:
            overrides += groups[key](value)
        elif isinstance(value, Mapping):
            overrides += _changed(f"{key}.", value, defaults[key])
        elif value != defaults[key]:
            overrides.append(override(key, value))
    # Hydra reads them in any order; the data comes first for the reader, as in the documents.
    return sorted(overrides, key=lambda text: not text.startswith("data"))


def _changed(prefix: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    return [
        override(f"{prefix}{key}", value)
        for key, value in values.items()
        if key not in defaults or value != defaults[key]
    ]


def _data(data: Mapping[str, Any]) -> list[str]:
    name = data["name"]
    defaults = defaults_of(source[name].Config) if name in source else {}
    values = {key: value for key, value in data.items() if key != "name" and (key in defaults or not defaults)}
    for file in (conf_dir() / "data").glob("*.yaml"):
        same = preset(file.stem)
        # Hydra adds the entries of a mapping to those of the preset.
        if all(data.get(key) == value or _within(value, data.get(key)) for key, value in same.items()):
            name, defaults = file.stem, defaults | same
    return [*([] if name == "synthetic" else [f"data={name}"]), *_changed("data.", values, defaults)]


def _within(entries: object, mapping: object) -> bool:
    return isinstance(entries, Mapping) and isinstance(mapping, Mapping) and entries.items() <= mapping.items()


def preset(name: str) -> dict[str, Any]:
    """The keys of a file in ``conf/data``; empty if there is no such file."""
    return {key: value for key, value in conf_file("data", name).items() if key != "defaults"}


def _model(model: Mapping[str, Any]) -> list[str]:
    file = conf_file("model", model["name"])
    chosen = [] if model["name"] == "resnet" else [f"model{'' if file else '.name'}={model['name']}"]
    return chosen + _changed("model.args.", model["args"], file.get("args", {}))


def _augment(augment: Mapping[str, Any]) -> list[str]:
    kept = [name for name, strengths in augment.items() if strengths is not None]

    def keeps_order(file: str) -> bool:
        names = [name for name in conf_file("augment", file) if name in kept]
        return kept == [*names, *(name for name in kept if name not in names)]  # a new augmentation comes last

    chosen = next(filter(keeps_order, AUGMENTS), "paper")
    defaults = conf_file("augment", chosen)
    overrides = [] if chosen == "paper" else [f"augment={chosen}"]
    overrides += [f"augment.{name}=null" for name in defaults if augment.get(name) is None]
    for name, strengths in augment.items():
        overrides += _changed(f"augment.{name}.", strengths or {}, defaults.get(name, {}))
        if strengths == {} and name not in defaults:
            overrides.append(f"augment.{name}={{}}")
    return overrides


def _logger(logger: Mapping[str, Any]) -> list[str]:
    chosen = [] if logger["name"] == "tensorboard" else [f"logger={logger['name']}"]
    return chosen + _changed("logger.args.", logger["args"], conf_file("logger", logger["name"]).get("args", {}))


@functools.cache
def _scale(name: str) -> dict[str, Any]:
    values = conf_file("scale", name)
    return {key: float(values[key]) for key in SCALED}  # YAML reads 3e-4 as text


def _matches(scale: str, config: Mapping[str, Any]) -> tuple[int, bool]:
    """How well a scale fits, to be compared: the number of its values that a configuration has, and the width."""
    same = [config[key] == value for key, value in _scale(scale).items()]
    return sum(same), same[0]
