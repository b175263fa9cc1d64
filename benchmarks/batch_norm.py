"""Accuracy of finished trainings with different statistics of batch normalisation, and the same weights.

``running`` are the statistics of the last batches; ``augmented`` and ``clean`` are computed from 2,500 training images,
with all augmentations that change no target, or with none (``recipe.batch_norm``). The runs' checkpoints are read, and
nothing is written. The runs need the data that they were trained on.

    python -m benchmarks.batch_norm runs/cnn/*
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deepfake_cls.checkpoints import read_checkpoint
from deepfake_cls.config import TrainerConfig
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.data.sources import read_manifest, source
from deepfake_cls.hardware import choose
from deepfake_cls.inference import predict_all
from deepfake_cls.records import read_record
from deepfake_cls.stats.metrics import score
from deepfake_cls.training.batch_norm import recompute
from deepfake_cls.training.module import Classifier

SOURCES = ("running", "augmented", "clean")


def accuracies(run: Path, threads: int | None) -> dict[str, float]:
    """Validation accuracy by the source of the statistics.

    Args:
        run: Folder of a finished training.
        threads: CPU threads; None keeps torch's choice.
    """
    config: dict[str, Any] = read_record(run).config
    hardware = choose(TrainerConfig(threads=threads, progress=False))
    data_config = source[config["data"]["name"]].Config(**config["data"])
    manifest = read_manifest(data_config)
    data = ImageData(manifest, data_config, config["channels"], config["batch_size"], config["seed"], progress=False)
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    model = Classifier(**checkpoint["hyper_parameters"])
    model.load_state_dict(checkpoint["state_dict"])
    model.to(hardware.device).eval()
    found = {}
    for name in SOURCES:
        if name != "running":
            recompute(model, data.train_pixels, config["batch_size"], hardware.precision, augmented=name == "augmented")
        outputs = predict_all(model.network, data.full_val_dataloader(), hardware.device, hardware.precision)
        found[name] = score(data.validation.labels, outputs.probs).metrics["acc"]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each run, and the mean and standard deviation over all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished trainings")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args(arguments)
    table = Table("run", *(f"{name} %" for name in SOURCES), box=box.SIMPLE_HEAD)
    columns: dict[str, list[float]] = defaultdict(list)
    for run in options.runs:
        found = accuracies(run, options.threads)
        table.add_row(str(run), *(f"{100 * found[name]:.1f}" for name in SOURCES))
        for name, accuracy in found.items():
            columns[name].append(100 * accuracy)
    if len(options.runs) > 1:
        means = [f"{statistics.mean(columns[name]):.1f} ± {statistics.stdev(columns[name]):.1f}" for name in SOURCES]
        table.add_row("mean ± sd", *means)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
