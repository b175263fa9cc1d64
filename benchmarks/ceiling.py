"""How far accuracy can go: images that no run gets right, and error against the number of training images.

Give the folders of finished runs that were scored on the same images, for example of several seeds and networks. With
``--sizes``, give runs on shares of the training images, at equal steps: the learning curve a + b·n^(−c) is fitted to
the mean error at each size; intervals are percentile bootstraps over images.

    python -m benchmarks.ceiling runs/cnn/*
    python -m benchmarks.ceiling runs/cnn/* --data PATH --sheet wrong.png    # draws the images that no run gets right
    python -m benchmarks.ceiling runs/shares/* --sizes

Runs on shares: ``python -m deepfake_cls.train arm=best data.train_fraction=0.25 epochs=60 ...``, 0.5 and 30, 1 and 15.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.samples import files_config
from deepfake_cls.data.images import open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_predictions, read_record

RESAMPLES = 1_000
COLUMNS = 10  # of the sheet
EXPONENTS = np.linspace(0.02, 3.0, 150)  # of the learning curve
TARGETS = (0.05, 0.03)  # errors that the learning curve is solved for


@dataclass(frozen=True)
class Scored:
    """Runs that were scored on the same images.

    Attributes:
        ids: One for each image.
        labels: int64 (N,).
        predictions: int64 (R, N), one row for each run.
        probs: float64 (R, N, C).
        records: Of the runs.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probs: NDArray[np.float64]
    records: list[Record]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which run gets which image wrong: bool (R, N)."""
        return np.asarray(self.predictions != self.labels)


def read(folders: Iterable[Path]) -> Scored:
    """Read finished runs.

    Raises:
        InputError: If there are none, or they were scored on different images.
    """
    read_runs = [(read_record(folder), *read_predictions(folder / "predictions.npz")) for folder in folders]
    runs = [run for run in read_runs if run[0].status == "ok"]
    if not runs:
        raise InputError("No finished runs: give folders that contain result.json and predictions.npz.")
    _, ids, labels, _ = runs[0]
    for record, other_ids, other_labels, _ in runs:
        if not np.array_equal(ids, other_ids) or not np.array_equal(labels, other_labels):
            raise InputError(f"Run {record.identity[:12]} was scored on other images than the first run.")
    probs = np.stack([run[3] for run in runs]).astype(np.float64)
    return Scored(ids, labels, probs.argmax(axis=2), probs, [run[0] for run in runs])


def agreement(scored: Scored) -> list[str]:
    """Sentences about the images that all runs get wrong, the best choice of a run for each image, and a vote."""
    wrong = scored.wrong
    runs, images = wrong.shape
    nowhere = wrong.all(axis=0)
    vote = scored.probs.mean(axis=0).argmax(axis=1) == scored.labels
    by_class = ", ".join(
        f"{name} {int((nowhere & (scored.labels == label)).sum())}"
        for label, name in enumerate(scored.records[0].data["classes"])
    )
    mean, sd = wrong.mean(), wrong.mean(axis=1).std(ddof=1) if runs > 1 else 0.0
    return [
        f"{runs} runs, {images:,} images; error of a run {100 * mean:.1f} ± {100 * sd:.1f} %.",
        f"All runs are wrong on {nowhere.sum()} images ({100 * nowhere.mean():.1f} %); by class: {by_class}.",
        f"At least one run is wrong on {wrong.any(axis=0).sum()} images ({100 * wrong.any(axis=0).mean():.1f} %).",
        f"Mean of the probabilities of all runs: {100 * vote.mean():.1f} % right.",
        f"Choosing the best run for each image: {100 * (1 - nowhere.mean()):.1f} % right (not reachable: it uses the"
        " labels).",
    ]


def errors_by_size(scored: Scored) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sizes of the training split, ascending (S,), and the error of each image, a mean over runs, at each: (S, N)."""
    of_run = np.array([record.data["sizes"]["train"] for record in scored.records])
    sizes = np.unique(of_run)
    return sizes.astype(np.float64), np.stack([scored.wrong[of_run == size].mean(axis=0) for size in sizes])


def fit_curve(sizes: NDArray[np.float64], errors: NDArray[np.float64]) -> tuple[float, float, float]:
    """Fit error = a + b·n^(−c) by least squares, with a and b not negative.

    For each exponent on a grid, a and b follow from linear least squares (variable projection). So no start values are
    needed, and each fit of the bootstrap ends.

    Args:
        sizes: float64 (S,), three or more.
        errors: float64 (S,).

    Returns:
        a, b and c.
    """
    best = (np.inf, 0.0, 0.0, 0.0)
    for c in EXPONENTS:
        power = (sizes / sizes[-1]) ** -c
        design = np.stack([np.ones_like(power), power], axis=1)
        a, b = np.linalg.lstsq(design, errors, rcond=None)[0]
        if a < 0:
            a, b = 0.0, power @ errors / (power @ power)
        elif b < 0:
            a, b = errors.mean(), 0.0
        loss = float(((a + b * power - errors) ** 2).sum())
        if loss < best[0]:
            best = (loss, float(a), float(b * sizes[-1] ** c), float(c))
    return best[1:]


def images_needed(curve: tuple[float, float, float], error: float) -> float:
    """Training images for an error: infinite where the curve never gets there."""
    a, b, c = curve
    return float((b / (error - a)) ** (1 / c)) if error > a else float("inf")


def learning_curve(scored: Scored, seed: int = 0) -> list[str]:
    """Sentences about the learning curve.

    Raises:
        InputError: With fewer than three sizes.
    """
    sizes, errors = errors_by_size(scored)
    if len(sizes) < 3:
        raise InputError(f"The learning curve needs runs on three numbers of training images; found {sizes.tolist()}.")
    means = errors.mean(axis=1)
    curve = fit_curve(sizes, means)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, errors.shape[1], (RESAMPLES, errors.shape[1]))
    fits = [fit_curve(sizes, errors[:, row].mean(axis=1)) for row in rows]
    floors = np.quantile([fit[0] for fit in fits], [0.025, 0.975])
    sentences = [
        f"{size:,.0f} training images: error {100 * mean:.1f} %." for size, mean in zip(sizes, means, strict=True)
    ]
    a, b, c = curve
    largest = sizes[-1]
    sentences.append(
        f"Fit: {100 * a:.1f} % + {100 * b * largest**-c:.1f} % · (n / {largest:,.0f})^−{c:.2f}; the first term lies"
        f" within {100 * floors[0]:.1f} to {100 * floors[1]:.1f} % (95 %)."
    )
    for target in TARGETS:
        needed = images_needed(curve, target)
        low, high = np.quantile([min(images_needed(fit, target), 1e12) for fit in fits], [0.025, 0.975])
        sentences.append(
            f"Error {100 * target:g} %: {_count(needed)} training images ({_count(low)} to {_count(high)})."
        )
    return sentences


def _count(images: float) -> str:
    if images >= 1e9:
        return "never, or more than 10⁹"
    digits = 10 ** max(len(str(int(images))) - 2, 0)
    return f"{int(round(images / digits) * digits):,}"


def draw_sheet(scored: Scored, data: str, file: Path) -> int:
    """Draw the validation images that no run gets right, with label and most frequent answer; return their number.

    Args:
        scored: The runs.
        data: Folder of the data set, in the layout of ``data=unibuc`` or ``data=folder``.
        file: The picture.
    """
    rows = np.flatnonzero(scored.wrong.all(axis=0))
    names = scored.records[0].data["classes"]
    config = files_config(data)
    images = open_images(read_manifest(config), "validation", config, progress=False)
    place = {image_id: row for row, image_id in enumerate(images.ids)}
    if missing := [str(image_id) for image_id in scored.ids[rows] if str(image_id) not in place]:
        raise InputError(f"--data={data}: has no validation image {missing[0]!r}; give the data of the runs.")
    lines = -(-len(rows) // COLUMNS)
    figure = Figure(figsize=(1.3 * COLUMNS, 1.5 * max(lines, 1)), layout="constrained")
    grid = figure.subplots(max(lines, 1), COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, row in zip(grid, rows, strict=False):
        axes.imshow(images.store.images[place[str(scored.ids[row])], ..., :3])
        answer = np.bincount(scored.predictions[:, row], minlength=len(names)).argmax()
        axes.set_title(f"{names[scored.labels[row]]}, answer {names[answer]}", fontsize=8, parse_math=False)
    figure.savefig(file, dpi=100)
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the findings, and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument(
        "--sizes", action="store_true", help="fit the learning curve over the numbers of training images"
    )
    parser.add_argument("--data", help="folder of the data set, for --sheet")
    parser.add_argument("--sheet", type=Path, help="picture of the images that no run gets right")
    options = parser.parse_args(arguments)
    if options.sheet is not None and options.data is None:
        parser.error("--sheet needs --data, the folder of the data set")
    try:
        scored = read(options.runs)
        print(*(learning_curve(scored) if options.sizes else agreement(scored)), sep="\n")
        if options.sheet is not None:
            print(f"{options.sheet}: {draw_sheet(scored, options.data, options.sheet)} images")
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
