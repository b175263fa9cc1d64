"""Records with correct and wrong predictions that a test chooses; nothing is trained."""

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
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from deepfake_cls.config import KnnConfig, ReportConfig, StatisticsConfig, TrainConfig, conf_dir
from deepfake_cls.records import Record, read_record, write_predictions, write_record
from deepfake_cls.report import __main__ as report
from deepfake_cls.report.collect import collect
from deepfake_cls.report.experiment import Arm, hydra_ready
from deepfake_cls.report.study import Study, declared, fill
from deepfake_cls.stats.metrics import score
from deepfake_cls.validation import validate
from tests.conftest import configure

IMAGES = 200
CLASSES = ["a", "b", "c", "d", "e_<&>%#|$"]
TINY = ("scale=tiny",)
COMPETITION = (*TINY, "data=unibuc", "data.root=x")
FOLDS = (*TINY, "data=unibuc", "data.root=x", "data.fold=${seed}", "trainer.curve_images=100")
CPU = ("some cpu", "32-true", 2)
CURVE = (0.3, 0.6, 0.55, 0.8)

Correct = NDArray[np.bool_]


def fold(seed: int) -> list[str]:
    """The overrides of one seed's run where each seed has its own fold, see ``FOLDS``."""
    return [f"data.fold={seed}" if override.startswith("data.fold") else override for override in FOLDS]


@cache
def _cached_compose(entry: str, overrides: tuple[str, ...], return_hydra_config: bool) -> DictConfig:
    with hydra_ready():
        return compose(entry, list(overrides), return_hydra_config=return_hydra_config)


def cached_compose(entry: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """Hydra's ``compose`` with a cache, since composing all arms takes seconds."""
    return deepcopy(_cached_compose(entry, tuple(overrides), return_hydra_config))


_validated: dict[tuple[type, str], Any] = {}


def cached_validate(config: DictConfig, schema: type[Any]) -> Any:
    """``validate`` with a cache, since it takes 0.1 s for each arm of each study."""
    key = schema, str(OmegaConf.to_container(config))
    if key not in _validated:
        _validated[key] = validate(config, schema)
    return deepcopy(_validated[key])


@cache
def _plain(kind: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    entry, schema = {"knn": ("knn", KnnConfig), "statistics": ("statistics", StatisticsConfig)}.get(
        kind, ("train", TrainConfig)
    )
    return asdict(validate(cached_compose(entry, overrides), schema))


def config_of(kind: str, *overrides: str) -> dict[str, Any]:
    """The configuration as a record contains it."""
    return deepcopy(_plain(kind, overrides))


def random_correct(share: float, seed: int, images: int = IMAGES) -> Correct:
    """Which predictions are correct: bool (images,)."""
    correct: Correct = np.random.default_rng([seed, round(1000 * share)]).random(images) < share
    return correct


def probabilities(correct: Correct, labels: NDArray[np.int64], classes: int = len(CLASSES)) -> NDArray[np.float32]:
    """Probabilities that predict the true class where ``correct``, else the next class."""
    predicted = np.where(correct, labels, (labels + 1) % classes)
    probs = np.full((len(correct), classes), 0.1 / (classes - 1), dtype=np.float32)
    probs[np.arange(len(correct)), predicted] = 0.9
    return probs


def write(
    root: Path,
    overrides: Sequence[str] = TINY,
    seed: int = 0,
    correct: Correct | None = None,
    *,
    kind: str = "cnn",
    folder: str | None = None,
    flipped: Correct | None = None,
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
    """Write the folder of one run and return it; with ``error``, of a failed run."""
    config = config_of(kind, *overrides) | {"seed": seed} | (changed or {})
    identity = hashlib.sha256(json.dumps([config, hardware, fingerprint], sort_keys=True).encode()).hexdigest()
    path = root / (folder or f"{kind}/{identity[:12]}")
    record = Record(kind, "failed", identity, config, seed=seed, error=error, versions={}, git={})
    if error is None:
        correct = random_correct(0.8, seed) if correct is None else correct
        labels = np.arange(len(correct), dtype=np.int64) % len(classes)
        probs = probabilities(correct, labels, len(classes))
        flipped_probs = None if flipped is None else probabilities(flipped, labels, len(classes))
        _add_scores(record, labels, probs, flipped_probs)
        record.status = "ok"
        record.device, record.precision, record.threads = hardware
        record.seconds = {"total": 70.0 + seed, "fit": 60.0 + seed}
        record.data = {"name": config["data"]["name"], "fingerprint": fingerprint, "classes": list(classes)}
        record.data |= {"sizes": {"train": 1000, "validation": len(correct)}, "size": [100, 100], "alpha": False}
        if kind == "cnn":
            record.metrics |= {"val_acc_best": max(history), "train_acc": train_acc}
            record.history = [
                {"epoch": float(epoch), "train_loss": 1.0, "val_loss": 1.0, "val_acc": value, "seconds": 1.0}
                for epoch, value in enumerate(history)
            ]
        names = tuple(ids) if ids is not None else tuple(f"image {index}" for index in range(len(correct)))
        write_predictions(path / "predictions.npz", names, labels, probs, probs_flip=flipped_probs)
    write_record(path, record)
    if time is not None:
        os.utime(path / "result.json", (time, time))
    return path


def _add_scores(
    record: Record, labels: NDArray[np.int64], probs: NDArray[np.float32], flipped: NDArray[np.float32] | None
) -> None:
    scores = score(labels, probs)
    record.metrics = scores.prefixed("validation")
    record.recall, record.confusion = scores.recall, scores.confusion
    if flipped is not None:
        record.metrics["val_acc_flip"] = score(labels, flipped).metrics["acc"]
    if record.kind == "statistics":
        pairs = [[0, 1, 0.75], [0, 2, 0.85], [1, 2, 0.95]]
        record.importance = [{"group": "all", "acc": 0.8, "pairs": pairs}]
        record.importance.append({"group": "colours", "acc": 0.7, "drop": 0.123, "pairs": pairs})
    if record.kind == "knn":
        record.by_k = {str(k): {"val_acc": record.metrics["val_acc"] - 0.01 * k} for k in record.config["k"]}
        record.metrics["contrast"] = 1.25


def make(*overrides: str) -> None:
    """Run the entry point of the report in this process."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("report", overrides=[*overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    try:
        report.run(configure("report", ReportConfig, *overrides), False)
    finally:
        HydraConfig.instance().cfg = None


def render(*overrides: str) -> str:
    """Run the entry point of the report in this process; return the page."""
    make(*overrides)
    return Path("reports/index.html").read_text()


def repeat(folder: Path, time: float) -> Path:
    """Give a run another run key, as if it was repeated after an edit of the sources."""
    record = read_record(folder)
    write_record(folder, replace(record, identity=hashlib.sha256(record.identity.encode()).hexdigest()))
    os.utime(folder / "result.json", (time, time))
    return folder


def study_of(root: Path, overrides: Sequence[str] = TINY) -> Study:
    """All records under a folder, assigned to their arms."""
    return fill(list(overrides), collect(root))


def arm(study: Study, experiment: str, label: str) -> Arm:
    """An arm by the start of its label."""
    return next(arm for arm in study.experiments[experiment].arms if arm.label.startswith(label))


def write_all(root: Path, seeds: int = 3, overrides: Sequence[str] = TINY) -> None:
    """Write runs of every arm of every experiment, as sweeps leave them."""
    written: set[str] = set()
    study = declared(overrides)
    for experiment in filter(study.includes, study.experiments.values()):
        if experiment.grid or experiment.optional:
            continue
        kind = "cnn" if experiment.entry == "train" else experiment.entry
        shared = [override for override in overrides if kind == "cnn" or override.startswith("data")]
        for index, one in enumerate(experiment.arms):
            for seed in range(seeds if kind == "cnn" else 1):
                key = json.dumps([config_of(kind, *shared, *one.overrides) | {"tta": ""}, seed], sort_keys=True)
                if key not in written:
                    correct = random_correct(0.85 - 0.03 * index, seed)
                    flipped = random_correct(0.86, seed) if kind == "cnn" else None
                    write(root, [*shared, *one.overrides], seed, correct, kind=kind, flipped=flipped)
                written.add(key)
