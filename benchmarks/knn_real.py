"""Exact nearest neighbours beside scikit-learn, on the same images, label by label.

Claim: the same labels as scikit-learn's brute force (images with tied neighbours counted apart), in less time.
n = all validation against all training images of a ``data=unibuc`` folder; both sides start from the images in
memory, and scikit-learn is given float32, as people give it.

    python -m benchmarks.knn_real PATH
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from deepfake_cls.config import TrainerConfig, UnibucConfig
from deepfake_cls.data.images import open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.hardware import choose, has_int8
from deepfake_cls.models.knn import nearest, votes

KS = [1, 3, 5, 7, 9, 11]


def main() -> None:
    """Alternate both sides, three times each, and compare every label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    hardware = choose(TrainerConfig(device="cpu"))
    config = UnibucConfig(root=options.root)
    manifest = read_manifest(config)
    train, validation = (open_images(manifest, name, config, progress=False) for name in ("train", "validation"))
    references, queries = np.array(train.store.images), np.array(validation.store.images)
    flat = references.reshape(len(references), -1).astype(np.float32)
    flat_queries = queries.reshape(len(queries), -1).astype(np.float32)
    print(f"{len(queries):,} × {len(references):,} × {flat.shape[1]:,}; {hardware.describe()}", flush=True)

    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        distances, indices = nearest(queries, references, max(KS) + 1, int8=has_int8("cpu"))
        counts = votes(indices, train.labels, len(manifest.classes), KS)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        model = KNeighborsClassifier(max(KS), algorithm="brute").fit(flat, train.labels)
        neighbours = model.kneighbors(flat_queries, return_distance=False)
        theirs.append(time.perf_counter() - started)
        print(f"ours {ours[-1]:.2f} s, scikit-learn {theirs[-1]:.2f} s", flush=True)
    print(f"median: ours {np.median(ours):.2f} s, scikit-learn {np.median(theirs):.2f} s,", end=" ")
    print(f"ratio {np.median(theirs) / np.median(ours):.2f}")
    for k, ballot in zip(KS, counts, strict=True):
        tied = distances[:, k - 1] == distances[:, k]
        other = votes(neighbours, train.labels, len(manifest.classes), [k])[0]
        differing = ballot.argmax(axis=1) != other.argmax(axis=1)
        accuracy = (ballot.argmax(axis=1) == validation.labels).mean()
        print(
            f"k = {k:2}: accuracy {100 * accuracy:.2f} %, {int((differing & ~tied).sum())} labels differ,"
            f" {int(tied.sum())} images with a tie at the k-th neighbour ({int((differing & tied).sum())} differ)"
        )


if __name__ == "__main__":
    main()
