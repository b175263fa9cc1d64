"""How the settings of a run differ from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from deepfake_cls.config import SCHEMAS, TrainConfig, conf_dir
from deepfake_cls.report.collect import Finished, flatten
from deepfake_cls.run_key import hashed_config


def settings_of(hashed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a hashed configuration other than the data, the seed and KNN's list of k: values by dotted key.

    Keys at their default value are absent, see :func:`deepfake_cls.run_key.hashed_config`.
    """
    settings = {key: value for key, value in hashed.items() if key not in ("data", "seed", "k")}
    if "augment" in settings:  # an entry without changes must remain: it is not a removed one
        settings["augment"] = {name: {"on": True, **strengths} for name, strengths in settings["augment"]}
    return flatten(settings)


def changes_of(run: Finished) -> tuple[str, dict[str, Any]]:
    """The scale whose defaults are closest to a run's settings, and the settings that differ from them.

    Returns:
        Name of the scale, empty for other kinds than ``cnn``; values by dotted key, None for a removed augmentation.
    """
    settings = settings_of(run.hashed) | {key: digest for key, digest in run.record.digests.items() if key == "init"}
    best: tuple[str, dict[str, Any]] | None = None
    for scale, defaults in _defaults(run.record.kind).items():
        keys = sorted(key for key in settings.keys() | defaults.keys() if settings.get(key) != defaults.get(key))
        if best is None or len(keys) < len(best[1]):
            values = {key.removesuffix(".on"): _value(run.record.config, key.removesuffix(".on")) for key in keys}
            best = scale, {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    assert best is not None
    return best


def changes_text(run: Finished) -> str:
    """``scale=tiny epochs=10``: the closest scale and the differing settings; empty for KNN with its defaults."""
    scale, changes = changes_of(run)
    texts = [f"scale={scale}"] if scale else []
    return " ".join([*texts, *(f"{key}={value_text(value)}" for key, value in changes.items())])


def value_text(value: Any) -> str:
    """``null``, ``true``: a value as Hydra reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _defaults(kind: str) -> dict[str, dict[str, Any]]:
    """The default settings by scale; one entry without a name for kinds that have no scale."""
    if kind != "cnn":
        return {"": settings_of(hashed_config(kind, asdict(SCHEMAS[kind]())))}
    augment: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "augment" / "paper.yaml"))
    scales = {}
    for name in ("small", "tiny", "reference"):
        scale = OmegaConf.load(conf_dir() / "scale" / f"{name}.yaml")
        config = TrainConfig(augment=augment, lr=float(scale.lr), epochs=scale.epochs, width=scale.width)
        scales[name] = settings_of(hashed_config(kind, asdict(config)))
    return scales


def _value(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key in a configuration; None if it has no such key."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
