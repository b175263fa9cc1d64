"""The settings of a run for a reader: the overrides by which it differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepfake_cls.commands import overrides_of
from deepfake_cls.notation import value_text
from deepfake_cls.run_key import EXCLUDED, EXCLUDED_BY_KIND


def settings(kind: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The values of a configuration that can change a result and differ from the command's defaults, by their key.

    Args:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        config: A configuration as nested dicts.

    Returns:
        Such as ``{"scale": "tiny", "lr": "0.001", "augment.cutmix": "null"}``; the name of the layout is left out.
    """
    # Of these files the run key contains the content, not the name.
    files = {"evaluate": {"checkpoint", "fuse"}, "cnn": {"init"}}.get(kind, set())
    excluded = (EXCLUDED[""] | EXCLUDED_BY_KIND.get(kind, set())) - files
    kept = {key: value for key, value in config.items() if key not in excluded}
    for group in EXCLUDED.keys() & kept.keys():
        kept[group] = {key: value for key, value in kept[group].items() if key not in EXCLUDED[group]}
    overrides = overrides_of("train" if kind == "cnn" else kind, kept, omit=())
    values = dict(override.split("=", 1) for override in overrides if not override.startswith("data="))
    # What is compared most comes first.
    return {key: values[key] for key in sorted(values, key=lambda key: (key.startswith("data."), key == "seed"))}


def settings_text(kind: str, config: Mapping[str, Any]) -> str:
    """``scale=tiny lr=0.001``."""
    return " ".join(f"{key}={value}" for key, value in settings(kind, config).items())


def recipe(kind: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The settings without those of the data, the seed and KNN's list of k."""
    return {
        key: value
        for key, value in settings(kind, config).items()
        if key not in ("seed", "k") and not key.startswith("data.")
    }


def recipe_text(kind: str, config: Mapping[str, Any]) -> str:
    """``scale=tiny epochs=10``."""
    return " ".join(f"{key}={value}" for key, value in recipe(kind, config).items())


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


def _default(config: Mapping[str, Any], key: str) -> str:
    """The value of a key that is at its default."""
    if key == "scale":
        return "small"
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return "default"  # such as an argument of another network
        value = value[part]
    return "default" if isinstance(value, Mapping) else value_text(value)
