"""Baselines on the embedded data: KNN, logistic regression, and the speed of its generation.

Claim: raw pixels carry little class information (KNN 20 to 40 %, a linear model below 50 %, chance 20 %). Two cores
generate at least 80 images per second. n = 2,500 training and 1,000 validation images, data seed 0; the rows name the
hardware.

    python -m benchmarks.embedded_data                        # about a minute on two cores
    python -m deepfake_cls.train scale=tiny epochs=10         # the network to compare with
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.table import append_csv
from deepfake_cls.config import SyntheticConfig, TrainerConfig
from deepfake_cls.data import drawing
from deepfake_cls.data.features import features
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.hardware import choose, has_int8
from deepfake_cls.models.knn import nearest, votes
from deepfake_cls.stats.intervals import wilson


def knn_correct(train: SplitImages, validation: SplitImages, kind: str, classes: int) -> int:
    """Number of correct predictions of KNN, k = 5."""
    references, queries = (features(split.store.images, kind, "RGB") for split in (train, validation))
    _, indices = nearest(queries, references, 5, int8=has_int8("cpu"))
    predicted = votes(indices, train.labels, classes, [5])[0].argmax(axis=1)
    return int((predicted == validation.labels).sum())


def linear_correct(train: SplitImages, validation: SplitImages) -> int:
    """Number of correct predictions of logistic regression on standardised raw pixels."""
    x, q = (split.store.images.reshape(len(split), -1).astype(np.float32) for split in (train, validation))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=60)).fit(x, train.labels)
    return int((model.predict(q) == validation.labels).sum())


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    output = parser.parse_args().output
    hardware = choose(TrainerConfig(device="cpu"))

    with tempfile.TemporaryDirectory() as cache:
        config = SyntheticConfig(cache=cache)
        manifest = read_manifest(config)
        started = time.perf_counter()
        train = open_images(manifest, "train", config, progress=False)
        rate = len(train) / (time.perf_counter() - started)
        validation = open_images(manifest, "validation", config, progress=False)
        correct = {
            f"KNN, k = 5, {kind}": knn_correct(train, validation, kind, len(manifest.classes))
            for kind in ("raw", "histogram", "spectrum")
        }
        correct["logistic regression, raw pixels"] = linear_correct(train, validation)

    what = "images drawn a second, processes started and all"
    rows: list[dict[str, object]] = [{"what": what, "value": round(rate, 1), "low": "", "high": "", "n": len(train)}]
    for name, count in correct.items():
        accuracy, n = round(count / len(validation), 4), len(validation)
        low, high = (round(bound, 4) for bound in wilson(count, n))
        rows.append({"what": name, "value": accuracy, "low": low, "high": high, "n": n})
    for row in rows:
        row |= {"generator": drawing.VERSION, "device": hardware.name, "threads": hardware.threads}
        row |= {"torch": torch.__version__, "numpy": np.__version__}
        print(f"{row['what']:52} {row['value']} {row['low']} {row['high']}")
    if output is not None:
        append_csv(output, rows)


if __name__ == "__main__":
    main()
