"""Score a trained model on a labelled split: ``python -m deepfake_cls.evaluate checkpoint=FILE``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_cls.cli import main
from deepfake_cls.config import EvaluateConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepfake_cls.data.images import SplitImages
    from deepfake_cls.hardware import Hardware
    from deepfake_cls.statistics_model import StatisticsModel


def run(config: EvaluateConfig, sweep: bool) -> None:
    """Score one checkpoint on one split; skip it if it is done."""
    started = time.perf_counter()
    from deepfake_cls.commands import label_command, predict_command
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.images import fingerprint, require_labels, require_same_classes
    from deepfake_cls.data.manifest import CUT_SPLITS
    from deepfake_cls.inference import data_as_trained, open_model, open_scored_split, predict_split
    from deepfake_cls.records import digest_of, write_predictions, write_record
    from deepfake_cls.run_folders import claim
    from deepfake_cls.run_key import run_key
    from deepfake_cls.stats.metrics import score
    from deepfake_cls.summary import print_run

    model, hardware = open_model(config)
    config = replace(config, data=data_as_trained(config.data, model))
    manifest = read_manifest(config.data, config.trainer.progress, cut=config.split in CUT_SPLITS)
    require_labels(manifest, config.split, predict_command(config.checkpoint, asdict(config)))
    require_same_classes(model.classes, manifest)
    split = open_scored_split(config, model, manifest)
    splits = {config.split: split}
    digests = {"checkpoint": digest_of("checkpoint", config.checkpoint)}
    statistics = None
    if config.fuse is not None:
        statistics, digests["fuse"] = open_statistics(config.fuse, model.classes, split)
    key = run_key("evaluate", config, fingerprint(manifest, splits), hardware, **digests)
    with claim("evaluate", key, config, sweep=sweep) as run:
        record = run.done
        if record is not None:
            print(f"{run.path}: already done; force=true repeats it.")
        else:
            print(f"{run.path}: {hardware.describe()}", flush=True)
            opened = time.perf_counter()
            outputs = predict_split(config, model, split, hardware)
            probs = outputs.final_probs
            real = model.real_label if manifest.real is None else manifest.real_label
            scores = score(split.labels, probs, split.groups, real)
            fused, added = fuse(config, statistics, split, hardware, probs, real)
            metrics = scores.prefixed(config.split) | added
            record = run.result(
                config, manifest, splits, hardware, scores, seed=model.seed, metrics=metrics, digests=digests
            )
            ended = time.perf_counter()
            record.seconds = {"total": ended - started, "setup": opened - started, "evaluate": ended - opened}
            path = run.path / "predictions.npz"
            others = {"logits": outputs.logits, "features": outputs.features, "probs_fused": fused}
            write_predictions(path, split.ids, split.labels, probs, split.groups, **others)
            write_record(run.path, record)
        label = label_command(config.checkpoint, asdict(config))
        print_run(record, run.path, {} if sweep else {"label images": label})


def open_statistics(text: str, classes: Sequence[str], split: SplitImages) -> tuple[StatisticsModel, str]:
    """The model of the statistics run that ``fuse`` names, and the SHA-256 of its file.

    Args:
        text: The folder of the run, or the first digits of its id.
        classes: The network's class names.
        split: The images that will be scored.

    Raises:
        InputError: If there is no such run, or it cannot be used for these images.
    """
    from deepfake_cls.inventory import find
    from deepfake_cls.records import digest_of
    from deepfake_cls.statistics_model import FILE, open_fusion

    run = find([text], Path("runs"))[0]
    if run.kind != "statistics":
        raise InputError(f"fuse={text}: {run.path} is a run of kind {run.kind}; give a statistics run.")
    return open_fusion(run.path, classes, split.store.images), digest_of("fuse", str(run.path / FILE))


def fuse(
    config: EvaluateConfig,
    statistics: StatisticsModel | None,
    split: SplitImages,
    hardware: Hardware,
    probs: NDArray[np.float32],
    real: int | None = None,
) -> tuple[NDArray[np.float32] | None, dict[str, float]]:
    """Combine the network's probabilities (N, C) with those of a statistics run, if there is one.

    ``real`` is the label of images that no generator made, if there is such a class.

    Returns:
        The combined probabilities, float32 (N, C), and their metrics by their name in a record.
    """
    if statistics is None:
        return None, {}
    from deepfake_cls.statistics_model import statistics_of
    from deepfake_cls.stats.metrics import score

    progress = config.trainer.progress
    values = statistics_of(split.store.images, statistics.groups, hardware.threads, progress=progress)
    assert statistics.fusion is not None  # open_fusion has checked it
    fused = statistics.fusion.probs(probs, statistics.classifier.logits(values))
    metrics = score(split.labels, fused, split.groups, real).prefixed(config.split)
    return fused, {f"{name}_fused": value for name, value in metrics.items()}


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, run)
