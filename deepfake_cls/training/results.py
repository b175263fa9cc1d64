"""What a training writes: outputs of the network on validation and training images, and the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import TrainConfig
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.hardware import Hardware
from deepfake_cls.inference import Outputs
from deepfake_cls.records import Record, write_predictions
from deepfake_cls.run_folders import Run
from deepfake_cls.stats.metrics import score

TRAIN_FEATURES = 20_000  # largest number of images in train_features.npz


def write_results(
    config: TrainConfig,
    data: ImageData,
    hardware: Hardware,
    run: Run,
    history: list[dict[str, float]],
    validation: Outputs,
    clean: Outputs,
    recomputed: Outputs | None = None,
) -> Record:
    """Write the outputs of validation and of clean (unaugmented) training images; return a record without times.

    ``recomputed`` are those of validation with recomputed statistics of batch normalisation.
    """
    labels = data.validation.labels
    scores = score(labels, validation.probs, data.validation.groups, data.manifest.real_label)
    metrics = scores.prefixed("validation")
    metrics["val_acc_best"] = max(row["val_acc"] for row in history)
    metrics["train_acc"] = score(data.train.labels, clean.probs).metrics["acc"]
    if validation.probs_flip is not None:
        metrics["val_acc_flip"] = score(labels, validation.probs_flip).metrics["acc"]
    if recomputed is not None:
        metrics["val_acc_recomputed"] = score(labels, recomputed.probs).metrics["acc"]
        validation = replace(validation, probs_recomputed=recomputed.probs)
    write_outputs(run.path / "predictions.npz", data.validation.ids, labels, validation, groups=data.validation.groups)
    rows = np.sort(np.random.default_rng(0).permutation(len(data.train))[:TRAIN_FEATURES])
    ids = [data.train.ids[row] for row in rows]
    write_outputs(run.path / "train_features.npz", ids, data.train.labels[rows], clean, rows)
    splits = {"train": data.train, "validation": data.validation}
    return run.result(config, data.manifest, splits, hardware, scores, metrics=metrics, history=history)


def write_outputs(
    path: Path,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    outputs: Outputs,
    rows: NDArray[np.int64] | slice = slice(None),
    groups: NDArray[np.int64] | None = None,
) -> None:
    """Write the outputs of some images.

    Args:
        path: The file.
        ids: Of the images that are written.
        labels: int64 (R,), of these images.
        outputs: Of all images.
        rows: int64 (R,), which images are written.
        groups: int64 (R,), the group of each of these images; None if there are no groups.
    """
    features, probs_flip, probs_recomputed = outputs.features, outputs.probs_flip, outputs.probs_recomputed
    write_predictions(
        path,
        ids,
        labels,
        outputs.probs[rows],
        groups,
        logits=outputs.logits[rows],
        features=None if features is None else features[rows],
        probs_flip=None if probs_flip is None else probs_flip[rows],
        probs_recomputed=None if probs_recomputed is None else probs_recomputed[rows],
    )
