"""Classify image statistics: ``python -m deepfake_cls.statistics``, the second baseline beside KNN."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_cls.cli import main
from deepfake_cls.config import StatisticsConfig
from deepfake_cls.errors import InputError
from deepfake_cls.notation import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepfake_cls.data.images import SplitImages
    from deepfake_cls.data.manifest import Manifest
    from deepfake_cls.hardware import Hardware
    from deepfake_cls.records import Record
    from deepfake_cls.run_folders import Run

    Splits = dict[str, SplitImages]


def run(config: StatisticsConfig, sweep: bool) -> None:
    """Fit a classifier to the statistics of the training images, and score the validation images."""
    started = time.perf_counter()
    from deepfake_cls.commands import command, shared_overrides
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.cautions import warn
    from deepfake_cls.data.images import fingerprint, open_images
    from deepfake_cls.hardware import choose
    from deepfake_cls.run_folders import claim
    from deepfake_cls.run_key import run_key
    from deepfake_cls.summary import print_run

    if config.trainer.device == "cuda":
        raise InputError("trainer.device=cuda: statistics runs on the CPU; omit trainer.device.")
    hardware = choose(replace(config.trainer, device="cpu", precision="32-true"))
    manifest = read_manifest(config.data, config.trainer.progress)
    manifest.require_classes()
    progress = config.trainer.progress
    train = open_images(manifest, "train", config.data, progress)
    validation = open_images(manifest, "validation", config.data, progress, train.store.size)
    splits = {"train": train, "validation": validation}
    require_images(manifest, train)
    key = run_key("statistics", config, fingerprint(manifest, splits), hardware)
    with claim("statistics", key, config, sweep=sweep) as run:
        record = run.done
        if record is not None and not config.fusion:
            print(f"{run.path}: already done; force=true repeats it.")
        elif record is not None:
            print(f"{run.path}: already done; adding the fusion from its model.")
        else:
            print(f"{run.path}: {hardware.describe()}", flush=True)
            warn(manifest, config.data, progress)
            record = classify(config, manifest, splits, hardware, run, started)
        if config.fusion:
            record = add_fusion(config, run, record)
        report = command("report", shared_overrides("report", asdict(config)))
        print_run(record, run.path, {} if sweep else {"next": report})


def require_images(manifest: Manifest, train: SplitImages) -> None:
    """Raise InputError if a class has too few training images for the cross-validation, or they are too small."""
    import numpy as np

    from deepfake_cls.models.statistics_classifier import FOLDS

    counts = np.bincount(train.labels, minlength=len(manifest.classes))
    few = [f"{name} ({count})" for name, count in zip(manifest.classes, counts, strict=True) if count < FOLDS]
    if few:
        raise InputError(
            f"Too few training images of {', '.join(few)}: the cross-validation of statistics needs {FOLDS} or more of"
            " each class. Add images, or omit these classes."
        )
    if train.groups is not None and (groups := len(np.unique(train.groups))) < FOLDS:
        raise InputError(
            f"The training images are of {plural(groups, 'group')}; the cross-validation of statistics needs {FOLDS} or"
            " more. Give smaller groups with data.group_pattern or data.group_table."
        )
    if min(train.store.size) < 4:
        height, width = train.store.size
        raise InputError(f"The images are of [{height},{width}]; statistics needs at least 4 pixels in each direction.")


def classify(
    config: StatisticsConfig, manifest: Manifest, splits: Splits, hardware: Hardware, run: Run, started: float
) -> Record:
    """Extract, fit and score; write model, predictions and record. ``started`` is a ``time.perf_counter``."""
    import torch
    from rich.progress import Progress
    from threadpoolctl import threadpool_limits

    from deepfake_cls.models.statistics_classifier import fit
    from deepfake_cls.models.statistics_importance import importance
    from deepfake_cls.randomness import derive
    from deepfake_cls.records import write_predictions, write_record
    from deepfake_cls.statistics_model import StatisticsModel, digests_of, write_model
    from deepfake_cls.stats.metrics import score

    train, validation, classes = splits["train"], splits["validation"], len(manifest.classes)
    seed = config.seed if config.seed >= 0 else derive(config.seed, "statistics")  # numpy takes no negative seeds
    opened = time.perf_counter()
    train_x, validation_x = (extract(config, splits[name], name, hardware) for name in ("train", "validation"))
    extracted = time.perf_counter()
    with threadpool_limits(hardware.threads), Progress(transient=True, disable=not config.trainer.progress) as bar:
        bar.add_task("cross-validation and importance", total=None)
        kernel = config.classifier == "kernel"
        classifier = fit(train_x, train.labels, classes, kernel=kernel, seed=seed, groups=train.groups)
        fitted = time.perf_counter()
        logits = classifier.logits(validation_x)
        probs = torch.from_numpy(logits).softmax(dim=1).numpy()
        scores = score(validation.labels, probs, validation.groups, manifest.real_label)
        evaluated = time.perf_counter()
        fitted_to, held_out = (train_x, train.labels), (validation_x, validation.labels)
        rows = importance(classifier, config.features, fitted_to, held_out, seed=seed)
    metrics, others = scores.prefixed("validation"), {"importance": rows, "precision": "float64"}
    record = run.result(config, manifest, splits, hardware, scores, metrics=metrics, **others)
    ended = time.perf_counter()
    record.seconds = {"total": ended - started, "setup": opened - started, "extract": extracted - opened}
    record.seconds |= {"fit": fitted - opened, "evaluate": evaluated - fitted, "importance": ended - evaluated}
    digests = [digests_of(split.store.images) for split in (train, validation)]
    groups, names, size = tuple(config.features), manifest.classes, train.store.size
    write_model(run.path, StatisticsModel(classifier, groups, names, size, digests[0], digests[1]))
    path = run.path / "predictions.npz"
    write_predictions(path, validation.ids, validation.labels, probs, validation.groups, logits=logits)
    write_record(run.path, record)
    return record


def extract(config: StatisticsConfig, split: SplitImages, name: str, hardware: Hardware) -> NDArray[np.float32]:
    """The statistics of a split, float32 (N, D), with a progress bar."""
    from deepfake_cls.statistics_model import statistics_of

    threads, progress = hardware.threads, config.trainer.progress
    return statistics_of(split.store.images, config.features, threads, progress=progress, name=name)


def add_fusion(config: StatisticsConfig, run: Run, record: Record) -> Record:
    """Fit the fusion to the two runs of ``config.fusion``; add it to the model and the record of a finished run."""
    from deepfake_cls.inventory import find
    from deepfake_cls.records import write_record
    from deepfake_cls.statistics_model import fit_to_runs, read_model, write_model

    network, statistics = find(config.fusion, Path("runs"))
    assert network.record is not None  # find returns finished runs only
    assert statistics.record is not None
    model = read_model(run.path)
    fusion = fit_to_runs(model, (network.path, network.record), (statistics.path, statistics.record))
    write_model(run.path, replace(model, fusion=fusion))
    metrics = {"fusion_weight": fusion.weight, "fusion_temperature": fusion.temperature}
    record = replace(record, metrics=record.metrics | metrics)
    write_record(run.path, record)
    return record


if __name__ == "__main__":
    main("statistics", StatisticsConfig, run)
