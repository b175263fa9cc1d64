"""Near-twins: how much too high the accuracy is if a cut separates images that belong together.

Claim: where each image exists twice, the second time with slight noise, the accuracy of KNN on a cut by image is far
too high, and on a cut by group it is that on new images. Embedded data of 32×32 pixels: 1,000 images of 500 drawings, a
fifth of them held out, 3 cuts; 1,000 new images. The accuracy does not depend on the hardware.

    python -m benchmarks.twins        # 25 s of CPU time
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import append_csv
from deepfake_cls import knn
from deepfake_cls.config import FolderConfig, KnnConfig, TrainerConfig
from deepfake_cls.data import drawing
from deepfake_cls.records import Record, read_record
from deepfake_cls.summary import correct_of, interval_of

NOISE = 2.0  # standard deviation of what distinguishes twins, in levels of 0 to 255
SIDE = 32
GROUPS = r"(\w+/\d+)-\d+\.png$"  # the drawing of a path CLASS/DRAWING-COPY.png


def write(folder: Path, split: str, drawings: int, copies: int) -> None:
    """Write that many drawings of the embedded data, of all classes in turn, and noisy copies of each.

    Args:
        folder: The classes become folders in it.
        split: The drawings of ``train`` and of ``validation`` differ.
        drawings: Number of drawings.
        copies: Images of each drawing, the first without noise.
    """
    rng = np.random.default_rng(0)
    for row in range(drawings):
        image = np.asarray(drawing.draw(0, split, row, size=SIDE), np.uint8)
        place = folder / drawing.CLASSES[drawing.label_of(row)]
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            noisy = image + (NOISE * rng.standard_normal(image.shape) if copy else 0)
            Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8)).save(place / f"{row}-{copy}.png")


def score(root: Path, groups: str | None, seed: int, run: Path) -> Record:
    """The record of KNN, k = 1, on pixels.

    Args:
        root: The data.
        groups: ``data.group_pattern``; None cuts by image.
        seed: Of the cut.
        run: Folder of the run.
    """
    cache = str(root.parent / "cache")
    data = FolderConfig(cache=cache, root=str(root), val_fraction=0.2, val_seed=seed, group_pattern=groups)
    config = KnnConfig(data=data, trainer=TrainerConfig(progress=False), run_dir=str(run), k=[1])
    with contextlib.redirect_stdout(io.StringIO()):
        knn.run(config, False)
    return read_record(run)


def measure(folder: Path, drawings: int, new: int, seeds: Sequence[int]) -> list[dict[str, object]]:
    """A row for each cut: its accuracy with its 95 % interval, and the numbers of images and groups.

    Args:
        folder: An empty folder.
        drawings: Number of drawings that are cut, with two images each.
        new: Number of new images.
        seeds: Of the cuts.
    """
    write(folder / "pool" / "train", "train", drawings, 2)
    write(folder / "new" / "train", "train", drawings, 2)
    write(folder / "new" / "validation", "validation", new, 1)
    cuts = [
        ("by image", "pool", None, seeds),
        ("by group", "pool", GROUPS, seeds),
        ("none: new images", "new", None, [0]),
    ]
    rows: list[dict[str, object]] = []
    for cut, root, groups, own in cuts:
        for seed in own:
            record = score(folder / root, groups, seed, folder / f"run-{len(rows)}")
            correct, count = correct_of(record)
            low, high = interval_of(record, correct)
            row: dict[str, object] = {"cut": cut, "seed": seed, "accuracy": round(correct / count, 4)}
            row |= {"low": round(low, 4), "high": round(high, 4), "n": count}
            rows.append(row | {"groups": record.data.get("groups", {}).get("validation", "")})
    return rows


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), 500, 1000, (0, 1, 2))
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep="  ")
    if output is not None:
        append_csv(output, rows)


if __name__ == "__main__":
    main()
