"""The settings of a run for a reader: the overrides by which it differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepfake_cls.run_key import conf_file, hashed_config

DEFAULT_SCALE = "small"  # of conf/train.yaml
SCALES = (DEFAULT_SCALE, "tiny", "reference")
SCALED = ("width", "epochs", "lr")  # what a scale sets


def settings(kind: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The values of a configuration that can change a result and differ from the command's defaults, by their key.

    Args:
        kind: ``cnn``, ``knn``, ``evaluate``.
        config: A configuration as nested dicts.

    Returns:
        Such as ``{"scale": "tiny", "lr": "0.001", "augment.cutmix": "null"}``; the name of the layout is left out.
    """
    hashed = hashed_config(kind, config)
    hashed["data"].pop("name", None)
    augment = hashed.pop("augment", None)
    model = hashed.pop("model", {})
    values = _scale(config) if kind == "cnn" else {}
    values |= {key: value for key, value in _flatten(hashed).items() if key not in SCALED}
    if model.get("name", "resnet") != "resnet":
        values["model.name"] = model["name"]
    values |= _flatten(model.get("args", {}), "model.args.")
    if augment is not None:
        strengths = dict(augment)
        values |= {f"augment.{name}": None for name in conf_file("augment", "paper") if name not in strengths}
        values |= _flatten(strengths, "augment.")
    # Not hashed: the content of these files counts, not their names.
    values |= {key: config[key] for key in ("checkpoint", "init") if kind != "knn" and config.get(key)}
    order = sorted(
        values, key=lambda key: (key.startswith("data."), key == "seed")
    )  # what is compared most comes first
    return {key: text(values[key]) for key in order}


def settings_text(kind: str, config: Mapping[str, Any]) -> str:
    """``scale=tiny lr=0.001``."""
    return " ".join(f"{key}={value}" for key, value in settings(kind, config).items())


def differences(kinds: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each configuration, its values of the settings that are not equal in all of them; the seed is left out."""
    found = [settings(kind, config) for kind, config in zip(kinds, configs, strict=True)]
    full = []
    for kind, config, own in zip(kinds, configs, found, strict=True):
        # A setting that another run of this kind changes is shown with its default value.
        keys = dict.fromkeys(key for other, values in zip(kinds, found, strict=True) if other == kind for key in values)
        full.append({key: own.get(key, _default(config, key)) for key in keys if key != "seed"})
    return [
        {key: value for key, value in values.items() if any(other.get(key) != value for other in full)}
        for values in full
    ]


def text(value: Any) -> str:
    """A value as an override of the command line shows it: ``0.001``, ``true``, ``[1,3]``."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _scale(config: Mapping[str, Any]) -> dict[str, Any]:
    """The scale that sets most of width, epochs and learning rate, and those of them that it does not set."""
    scales = {name: conf_file("scale", name) for name in SCALES}
    keys = [key for key in SCALED if key in config]
    equal = {name: sum(float(values[key]) == config[key] for key in keys) for name, values in scales.items()}
    name = max(SCALES, key=equal.__getitem__)
    scale = {} if name == DEFAULT_SCALE else {"scale": name}
    return scale | {key: config[key] for key in keys if config[key] != float(scales[name][key])}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _default(config: Mapping[str, Any], key: str) -> str:
    """The value of a key that is at its default."""
    if key == "scale":
        return DEFAULT_SCALE
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return "default"  # such as an argument of another network
        value = value[part]
    return "default" if isinstance(value, Mapping) else text(value)
