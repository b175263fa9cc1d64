"""Is the embedded data set what it claims to be?

Claim: pixels alone say little (KNN 20 to 40 %, a linear model below 50 %, chance 20 %), colour histograms say some,
and the traces say nearly everything to a network; 80 images a second or more are drawn on two cores.
n = 2,500 training and 1,000 validation images, data seed 0; hardware is in the rows that this prints.

    python -m benchmarks.embedded_data            # about a minute on two cores
    python -m deepfake_cls.train                  # the network's side of the claim
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepfake_cls.config import SyntheticConfig, TrainerConfig
from deepfake_cls.data import drawing
from deepfake_cls.data.features import features
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.hardware import choose, has_int8
from deepfake_cls.models.knn import nearest, votes
from deepfake_cls.stats.intervals import wilson


def knn_correct(train: SplitImages, validation: SplitImages, kind: str, classes: int) -> int:
    """Right predictions at k = 5."""
    references, queries = (features(split.store.images, kind, "RGB") for split in (train, validation))
    _, indices = nearest(queries, references, 5, int8=has_int8("cpu"))
    chosen = votes(indices, train.labels, classes, [5])[0].argmax(axis=1)
    return int((chosen == validation.labels).sum())


def linear_correct(train: SplitImages, validation: SplitImages) -> int:
    """Right predictions of logistic regression on standardised raw pixels."""
    x, q = (split.store.images.reshape(len(split), -1).astype(np.float32) for split in (train, validation))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=60)).fit(x, train.labels)
    return int((model.predict(q) == validation.labels).sum())


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    output = parser.parse_args().output
    hardware = choose(TrainerConfig(device="cpu"))
    rows: list[dict[str, object]] = []

    with tempfile.TemporaryDirectory() as cache:
        config = SyntheticConfig(cache=cache)
        manifest = read_manifest(config)
        started = time.perf_counter()
        train = open_images(manifest, "train", config, progress=False)
        rate = len(train) / (time.perf_counter() - started)
        validation = open_images(manifest, "validation", config, progress=False)
        n = len(validation)
        rows.append(
            {"what": "images drawn a second, processes started and all", "value": round(rate, 1), "n": len(train)}
        )
        found = {f"KNN, k = 5, {kind}": kind for kind in ("raw", "histogram", "spectrum")}
        results = {name: knn_correct(train, validation, kind, len(manifest.classes)) for name, kind in found.items()}
        results["logistic regression, raw pixels"] = linear_correct(train, validation)
    for name, correct in results.items():
        low, high = wilson(correct, n)
        rows.append(
            {"what": name, "value": round(correct / n, 4), "low": round(low, 4), "high": round(high, 4), "n": n}
        )
    for row in rows:
        row |= {"generator": drawing.VERSION, "device": hardware.name, "threads": hardware.threads}
        row |= {"torch": torch.__version__, "numpy": np.__version__}
        interval = f"  ({row['low']} to {row['high']})" if "low" in row else ""
        print(f"{row['what']:52} {row['value']}{interval}")
    if output is not None:
        fresh = not output.exists()
        with output.open("a", newline="") as file:
            names = ["what", "value", "low", "high", "n", "generator", "device", "threads", "torch", "numpy"]
            writer = csv.DictWriter(file, names, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
