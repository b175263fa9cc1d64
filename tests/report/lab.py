"""Records as runs would leave them, from right and wrong answers that a test chooses; nothing is trained."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from numpy.typing import NDArray
from omegaconf import DictConfig

from deepfake_cls.config import KnnConfig, TrainConfig, conf_dir
from deepfake_cls.records import Record, read_record, write_predictions, write_record
from deepfake_cls.report.collect import collect
from deepfake_cls.report.experiment import Arm
from deepfake_cls.report.study import Study, fill
from deepfake_cls.stats.metrics import score
from deepfake_cls.validation import validate

IMAGES = 200
CLASSES = ["a", "b", "c", "d", "e_<&>%#|$"]
TINY = ("scale=tiny",)
FOLDS = (*TINY, "data=unibuc", "data.root=x", "data.fold=${seed}", "trainer.curve_images=100")
CPU = ("some cpu", "32-true", 2)
CURVE = (0.3, 0.6, 0.55, 0.8)

Right = NDArray[np.bool_]


def fold(seed: int) -> list[str]:
    """The words of one seed's run where each seed has its own fold, see ``FOLDS``."""
    return [f"data.fold={seed}" if word.startswith("data.fold") else word for word in FOLDS]


@cache
def _composed_once(entry: str, words: tuple[str, ...], whole: bool) -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        return compose(entry, list(words), return_hydra_config=whole)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(entry, list(words), return_hydra_config=whole)


def compose_once(entry: str, words: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """As Hydra's ``compose``; the same words compose the same, and to compose all arms takes seconds."""
    return deepcopy(_composed_once(entry, tuple(words), return_hydra_config))


@cache
def _plain(kind: str, words: tuple[str, ...]) -> dict[str, Any]:
    entry, schema = ("knn", KnnConfig) if kind == "knn" else ("train", TrainConfig)
    config: Any = validate(compose_once(entry, words), schema)
    return asdict(config)


def composed(kind: str, *words: str) -> dict[str, Any]:
    """The configuration as a record holds it."""
    return deepcopy(_plain(kind, words))


def some_right(share: float, seed: int, images: int = IMAGES) -> Right:
    """Right answers: bool (images,)."""
    right: Right = np.random.default_rng([seed, round(1000 * share)]).random(images) < share
    return right


def probabilities(right: Right, labels: NDArray[np.int64], classes: int = len(CLASSES)) -> NDArray[np.float32]:
    """Probabilities that are right where asked, and else take an image for the next class."""
    taken = np.where(right, labels, (labels + 1) % classes)
    probs = np.full((len(right), classes), 0.1 / (classes - 1), dtype=np.float32)
    probs[np.arange(len(right)), taken] = 0.9
    return probs


def write(
    root: Path,
    words: Sequence[str] = TINY,
    seed: int = 0,
    right: Right | None = None,
    *,
    kind: str = "cnn",
    folder: str | None = None,
    flipped: Right | None = None,
    hardware: tuple[str, str, int] = CPU,
    fingerprint: str = "f" * 64,
    ids: Sequence[str] | None = None,
    history: Sequence[float] = CURVE,
    train_acc: float = 0.9,
    time: float | None = None,
    error: str | None = None,
    changed: dict[str, Any] | None = None,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write the folder of one run and return it; with ``error`` that of a failed one."""
    config = composed(kind, *words) | {"seed": seed} | (changed or {})
    device, precision, threads = hardware
    identity = hashlib.sha256(json.dumps([config, hardware, fingerprint], sort_keys=True).encode()).hexdigest()
    place = root / (folder or f"{kind}/{identity[:12]}")
    record = Record(kind, "failed", identity, config, seed=seed, error=error, versions={}, git={})
    if error is None:
        right = some_right(0.8, seed) if right is None else right
        labels = np.arange(len(right), dtype=np.int64) % len(classes)
        probs = probabilities(right, labels, len(classes))
        scores = score(labels, probs)
        record.status = "ok"
        record.metrics = scores.prefixed("validation")
        record.recall, record.confusion = scores.recall, scores.confusion
        record.data = {
            "name": config["data"]["name"],
            "fingerprint": fingerprint,
            "sizes": {"train": 1000, "validation": len(right)},
            "size": [100, 100],
            "classes": list(classes),
            "alpha": False,
        }
        record.device, record.precision, record.threads = device, precision, threads
        record.seconds = {"total": 70.0 + seed, "fit": 60.0 + seed}
        other = None
        if kind == "cnn":
            record.metrics |= {"val_acc_best": max(history), "train_acc": train_acc}
            record.history = [
                {"epoch": float(epoch), "train_loss": 1.0, "val_loss": 1.0, "val_acc": value, "seconds": 1.0}
                for epoch, value in enumerate(history)
            ]
            if flipped is not None:
                other = probabilities(flipped, labels, len(classes))
                record.metrics["val_acc_flip"] = score(labels, other).metrics["acc"]
        else:
            record.by_k = {str(k): {"val_acc": record.metrics["val_acc"] - 0.01 * k} for k in config["k"]}
            record.metrics["contrast"] = 1.25
        names = tuple(ids) if ids is not None else tuple(f"image {place}" for place in range(len(right)))
        write_predictions(place / "predictions.npz", names, labels, probs, probs_flip=other)
    write_record(place, record)
    if time is not None:
        os.utime(place / "result.json", (time, time))
    return place


def repeat(folder: Path, time: float) -> Path:
    """Give a run another identity, as the same run has after an edit of the sources."""
    record = read_record(folder)
    write_record(folder, replace(record, identity=hashlib.sha256(record.identity.encode()).hexdigest()))
    os.utime(folder / "result.json", (time, time))
    return folder


def study_of(root: Path, words: Sequence[str] = TINY) -> Study:
    """All records under a folder, in their arms."""
    return fill(list(words), collect(root))


def arm(found: Study, experiment: str, label: str) -> Arm:
    """An arm by the start of its label."""
    return next(arm for arm in found.experiments[experiment].arms if arm.label.startswith(label))


def write_all(root: Path, seeds: int = 3, words: Sequence[str] = TINY, arms: Study | None = None) -> None:
    """Runs of every arm of every experiment, as sweeps would leave them."""
    declared = arms or fill(list(words), [])
    done: set[str] = set()
    for experiment in declared.experiments.values():
        for place, one in enumerate(experiment.arms):
            kind = "knn" if experiment.entry == "knn" else "cnn"
            known = [word for word in words if kind == "cnn" or word.startswith("data")]
            for seed in range(seeds if kind == "cnn" else 1):
                right = some_right(0.85 - 0.03 * place, seed)
                flipped = some_right(0.86, seed) if kind == "cnn" else None
                key = json.dumps([composed(kind, *known, *one.words) | {"tta": ""}, seed], sort_keys=True)
                if key not in done:
                    write(root, [*known, *one.words], seed, right, kind=kind, flipped=flipped)
                done.add(key)
