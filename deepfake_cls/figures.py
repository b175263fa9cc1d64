"""Figures: arrays in, matplotlib figures out. Nothing here reads a file or trains a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage

# Okabe and Ito 2008: told apart by readers with colour-vision deficiency.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def _figure(width: float, height: float) -> Figure:
    # No pyplot: it keeps every figure alive, and a training run draws one each epoch.
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def confusion_figure(counts: NDArray[Any], classes: Sequence[str], title: str = "") -> Figure:
    """Confusion matrix: counts as numbers, shares of the true class as colour.

    Args:
        counts: (C, C); rows are true classes, columns predictions.
        classes: Names in label order.
        title: Above the figure.
    """
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.6, 0.75 * len(classes) + 1.8), 12.0)  # drawn every epoch: it may not grow without limit
    figure = _figure(side + 0.4, side)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts) if len(classes) <= 20 else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(count)), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right", parse_math=False)  # "$" is a name's own
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def learning_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Learning curves: loss in training and validation, and validation accuracy, by epoch.

    Args:
        histories: Rows of a record's ``history`` for each run's name.
    """
    figure = _figure(8.4, 3.2)
    left, right = figure.subplots(1, 2)
    for (name, rows), colour in zip(histories.items(), PALETTE * 9, strict=False):
        epochs = [row["epoch"] + 1 for row in rows]
        left.plot(
            epochs,
            [row["train_loss"] for row in rows],
            color=colour,
            label=f"{name}, training (smoothed, mixed)",
        )
        left.plot(epochs, [row["val_loss"] for row in rows], color=colour, ls="--", label=f"{name}, validation")
        right.plot(epochs, [100 * row["val_acc"] for row in rows], color=colour, marker="o", ms=3, label=name)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(0, 100))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def accuracy_figure(rows: Sequence[tuple[str, float, float, float]], chance: float) -> Figure:
    """Accuracies with intervals, as horizontal dots.

    Args:
        rows: (name, accuracy, low, high), fractions.
        chance: Accuracy of guessing, drawn as a line.
    """
    figure = _figure(7.2, 0.9 + 0.42 * len(rows))
    axes = figure.subplots()
    for place, (_, value, low, high) in enumerate(rows):
        axes.plot([100 * low, 100 * high], [place, place], color=PALETTE[0], lw=2)
        axes.plot(100 * value, place, "o", color=PALETTE[0])
        axes.annotate(f"{100 * value:.1f}", (100 * high, place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.axvline(100 * chance, color="grey", ls=":", lw=1)
    axes.annotate("chance", (100 * chance, len(rows) - 0.45), color="grey", fontsize=8, ha="center")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(xlabel="accuracy (%), 95 % Wilson interval", xlim=(0, 105), ylim=(len(rows) - 0.2, -0.7))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def residual(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Noise residual: image minus its Gaussian blur (σ = 1), where generators leave their traces.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        float32 (N, H, W, 3).
    """
    x = images[..., :3].astype(np.float32)
    return np.asarray(x - ndimage.gaussian_filter(x, sigma=(0, 1, 1, 0)), dtype=np.float32)


def mean_spectrum(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean log power spectrum of the residual's grey value, zero frequency in the middle (Frank et al. 2020).

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        float32 (H, W).
    """
    grey = residual(images).mean(axis=-1)
    power = np.abs(np.fft.fft2(grey, axes=(1, 2))) ** 2
    return np.asarray(np.fft.fftshift(np.log(power.mean(axis=0) + 1e-6)), dtype=np.float32)


def classes_figure(samples: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """A row for each class: examples, the residual of the first, and how the class's spectrum differs.

    Args:
        samples: uint8 (N, H, W, C) for each class's name; the more, the cleaner the spectrum.
    """
    spectra = {name: mean_spectrum(images) for name, images in samples.items()}
    common = np.mean(list(spectra.values()), axis=0)
    reach = max(float(np.abs(spectrum - common).max()) for spectrum in spectra.values())
    figure = _figure(8.6, 1.62 * len(samples) + 0.5)
    grid = figure.subplots(len(samples), 5, squeeze=False)
    for row, (name, images) in zip(grid, samples.items(), strict=True):
        for axes, image in zip(row[:3], images, strict=False):
            axes.imshow(image[..., :3])
        row[3].imshow(np.clip(128 + 6 * residual(images[:1])[0], 0, 255).astype(np.uint8))
        row[4].imshow(spectra[name] - common, cmap="RdBu_r", vmin=-reach, vmax=reach)
        row[0].set_ylabel(name, fontsize=9, parse_math=False)
    for axes, title in zip(grid[0], ("examples", "", "", "residual × 6 (first)", "spectrum − mean"), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def by_class(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str], most: int
) -> dict[str, NDArray[np.uint8]]:
    """The first images of each class, as `classes_figure` and `traces_figure` take them.

    Args:
        images: uint8 (N, H, W, C), may be memory-mapped.
        labels: int64 (N,).
        classes: Names in label order.
        most: Images of a class.
    """
    return {name: images[np.flatnonzero(labels == label)[:most]] for label, name in enumerate(classes)}


def traces_figure(samples: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Mean noise residual of each class, and the mean log power spectrum of its residuals.

    The mean residual keeps what lies at the same place in every image (a fingerprint: Marra et al. 2019), the spectrum
    also what repeats at a place of its own in each. Both rows have one scale for all classes.

    Args:
        samples: uint8 (N, H, W, C) for each class's name, N at least 1.
    """
    means = [residual(images).mean(axis=(0, 3)) for images in samples.values()]
    spectra = [mean_spectrum(images) for images in samples.values()]
    reach = float(np.quantile(np.abs(means), 0.99))
    low, high = np.quantile(spectra, (0.01, 0.999))
    figure = _figure(1.9 * len(samples) + 1.1, 4.2)
    grid = figure.subplots(2, len(samples), squeeze=False)
    for column, (name, mean, spectrum) in enumerate(zip(samples, means, spectra, strict=True)):
        above = grid[0, column].imshow(mean, cmap="RdBu_r", vmin=-reach, vmax=reach)
        below = grid[1, column].imshow(spectrum, cmap="magma", vmin=low, vmax=high)
        grid[0, column].set_title(name, fontsize=9, parse_math=False)
    for row, shown, label in zip(
        grid, (above, below), ("mean residual, grey levels", "mean spectrum, log power"), strict=True
    ):
        figure.colorbar(shown, ax=row.tolist(), label=label, shrink=0.8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def nearest_figure(
    queries: NDArray[np.uint8],
    labels: NDArray[np.int64],
    neighbours: NDArray[np.uint8],
    found: NDArray[np.int64],
    classes: Sequence[str],
) -> Figure:
    """Images beside their nearest neighbours; a frame says whether a neighbour is of the same class.

    Args:
        queries: uint8 (Q, H, W, C).
        labels: int64 (Q,), their classes.
        neighbours: uint8 (Q, k, H, W, C), nearest first.
        found: int64 (Q, k), the neighbours' classes.
        classes: Names in label order.
    """
    figure = _figure(1.5 * (found.shape[1] + 1) + 0.2, 1.75 * len(queries))
    grid = figure.subplots(len(queries), found.shape[1] + 1, squeeze=False)
    for line, query, label, images, others in zip(grid, queries, labels, neighbours, found, strict=True):
        line[0].imshow(query[..., :3])
        line[0].set_title(classes[label], fontsize=8, fontweight="bold", parse_math=False)
        line[0].spines[:].set_visible(False)
        for axes, image, other in zip(line[1:], images, others, strict=True):
            axes.imshow(image[..., :3])
            same = other == label
            axes.set_title(f"{'✓' if same else '✗'} {classes[other]}", fontsize=8, parse_math=False)
            axes.spines[:].set(color=PALETTE[2] if same else PALETTE[1], linewidth=3)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def bands_figure(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Validation accuracy by epoch for each arm: the mean over seeds, and a band from the lowest to the highest seed.

    Args:
        curves: For each arm's label one sequence of accuracies for each seed.
    """
    figure = _figure(7.6, 3.6)
    axes = figure.subplots()
    for (label, seeds), colour in zip(curves.items(), PALETTE * 9, strict=False):
        length = min(map(len, seeds))
        values = 100 * np.array([accuracies[:length] for accuracies in seeds])
        epochs = np.arange(1, length + 1)
        axes.plot(epochs, values.mean(axis=0), color=colour, marker="o", ms=3, label=label)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def forest_figure(rows: Sequence[tuple[str, float, float, float]], baseline: str, margin: float = 0.01) -> Figure:
    """Differences from the baseline with their intervals; the grey band is what counts as equivalent.

    Args:
        rows: (arm, difference, low, high), fractions.
        baseline: Label of the arm that is compared with.
        margin: Half-width of the band, a fraction.
    """
    figure = _figure(7.6, 1.0 + 0.42 * len(rows))
    axes = figure.subplots()
    axes.axvspan(-100 * margin, 100 * margin, color="#e6eaee", lw=0)
    axes.axvline(0, color="grey", lw=1)
    for place, (_, value, low, high) in enumerate(rows):
        colour = PALETTE[2] if low > 0 else PALETTE[1] if high < 0 else PALETTE[0]
        axes.plot([100 * low, 100 * high], [place, place], color=colour, lw=2)
        axes.plot(100 * value, place, "o", color=colour)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set(
        xlabel=f"difference from {baseline}, points; 95 % interval over seeds and images", ylim=(len(rows) - 0.4, -0.6)
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def confusions_figure(counts: NDArray[Any], classes: Sequence[str]) -> Figure:
    """Confusion matrix twice: counts, and per cent of the true class.

    Args:
        counts: (C, C); rows are true classes, columns predictions; may be summed over seeds.
        classes: Names in label order.
    """
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.6, 0.7 * len(classes) + 1.6), 9.0)
    figure = _figure(2 * side + 0.6, side)
    for axes, texts, title in zip(
        figure.subplots(1, 2), (counts, np.rint(1000 * share) / 10), ("counts", "% of the true class"), strict=True
    ):
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(texts) if len(classes) <= 20 else ():
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{value:g}", ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
        axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def neighbours_figure(curves: Mapping[str, Mapping[int, tuple[float, float, float]]]) -> Figure:
    """Accuracy of nearest neighbours over k.

    Args:
        curves: For each label (accuracy, low, high) by k, fractions; low and high may equal the accuracy.
    """
    figure = _figure(6.4, 3.2)
    axes = figure.subplots()
    for (label, points), colour in zip(curves.items(), PALETTE, strict=False):
        ks = sorted(points)
        value, low, high = (100 * np.array([points[k][part] for k in ks]) for part in range(3))
        axes.plot(ks, value, color=colour, marker="o", ms=4, label=label)
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="k", ylabel="accuracy (%)", xticks=sorted({k for points in curves.values() for k in points}))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def recall_figure(classes: Sequence[str], ours: NDArray[Any], report: Sequence[float] | None) -> Figure:
    """Recall by class: a dot for each seed, a bar at their mean, and the report's figure.

    Args:
        classes: Names in label order.
        ours: (seeds, C), fractions; NaN where a class has no images.
        report: The report's recall by class, or None where its classes are others.
    """
    figure = _figure(7.2, 0.9 + 0.42 * len(classes))
    axes = figure.subplots()
    for label in range(len(classes)):
        values = 100 * ours[:, label]
        axes.plot(
            values, np.full(len(values), label), "o", color=PALETTE[0], alpha=0.6, label="a seed" if not label else None
        )
        axes.plot([values.mean()] * 2, [label - 0.25, label + 0.25], color=PALETTE[0], lw=2)
        if report is not None:
            axes.plot(100 * report[label], label, "D", color=PALETTE[1], label="report" if not label else None)
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.set(xlabel="recall (%)", ylim=(len(classes) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def mistakes_figure(rows: Sequence[tuple[str, NDArray[np.uint8], Sequence[float]]]) -> Figure:
    """Contact sheet of the most confident mistakes: a row for each confused pair.

    Args:
        rows: (what was taken for what, uint8 (n, H, W, C), probability of the wrong class for each).
    """
    most = max(len(images) for _, images, _ in rows)
    figure = _figure(1.25 * most + 1.6, 1.45 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), most, squeeze=False)
    for line, (label, images, confidence) in zip(grid, rows, strict=True):
        line[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
        for axes, image, p in zip(line, images, confidence, strict=False):
            axes.imshow(image[..., :3])
            axes.set_title(f"{100 * p:.0f} %", fontsize=8, pad=2)
        for axes in line[len(images) :]:
            axes.set_frame_on(False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return figure
