"""Figures: arrays in, matplotlib figures out. Nothing here reads files or trains models."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage

from deepfake_cls.escaping import printable

# Okabe and Ito 2008: distinguishable with colour-vision deficiency.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Estimate = tuple[str, float, float, float]  # name, value, low, high; fractions


def data_uri(figure: Figure) -> str:
    """A figure as PNG in a ``data:`` address, for a page without other files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: float, height: float) -> Figure:
    # No pyplot: it keeps every figure in memory, and a training draws one each epoch.
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _remove_ticks(grid: NDArray[Any]) -> None:
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])


def confusion_figure(counts: NDArray[Any], classes: Sequence[str], title: str = "") -> Figure:
    """Confusion matrix: each cell shows its count and its percentage of the true class, which is also its colour.

    Args:
        counts: (C, C); rows are true classes, columns predictions; may be summed over seeds.
        classes: Class names, in label order.
        title: Above the figure.
    """
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.6, 0.75 * len(classes) + 1.8), 12.0)  # limited, since it is drawn every epoch
    figure = _figure(side + 0.4, side)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts) if len(classes) <= 20 else ():
        colour = "white" if share[row, column] > 0.5 else "black"
        text = f"{int(count)}\n{100 * share[row, column]:.1f} %"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    names = [*map(printable, classes)]
    axes.set_xticks(range(len(classes)), names, rotation=30, ha="right", parse_math=False)  # names may contain "$"
    axes.set_yticks(range(len(classes)), names, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def learning_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Training and validation loss, and validation accuracy, by epoch; for each run's name its ``Record.history``."""
    figure = _figure(8.4, 3.2)
    left, right = figure.subplots(1, 2)
    for (name, rows), colour in zip(histories.items(), PALETTE * 9, strict=False):
        epochs = [row["epoch"] + 1 for row in rows]
        train_loss = [row["train_loss"] for row in rows]
        left.plot(epochs, train_loss, color=colour, label=f"{name}, training (smoothed, mixed)")
        left.plot(epochs, [row["val_loss"] for row in rows], color=colour, ls="--", label=f"{name}, validation")
        right.plot(epochs, [100 * row["val_acc"] for row in rows], color=colour, marker="o", ms=3, label=name)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(0, 100))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_grid_and_legend(axes)
    return figure


def accuracy_figure(rows: Sequence[Estimate], chance: float) -> Figure:
    """Accuracies with intervals, from top to bottom, and a line at the accuracy of guessing."""
    figure, axes = _estimates(rows, [PALETTE[0]] * len(rows))
    for y, (_, value, _, high) in enumerate(rows):
        axes.annotate(f"{100 * value:.1f}", (100 * high, y), xytext=(6, 0), textcoords="offset points", va="center")
    axes.axvline(100 * chance, color="grey", ls=":", lw=1)
    axes.annotate("chance", (100 * chance, len(rows) - 0.45), color="grey", fontsize=8, ha="center")
    axes.set(xlabel="accuracy (%), 95 % interval", xlim=(0, 105), ylim=(len(rows) - 0.2, -0.7))
    return figure


def spread_figure(values: Mapping[str, NDArray[Any]], label: str) -> Figure:
    """The spread of a value in each class: median, quartiles, and a line from 5 % to 95 %; each array (N,), N ≥ 1."""
    figure = _figure(7.6, 0.9 + 0.42 * len(values))
    axes = figure.subplots()
    for y, each in enumerate(values.values()):
        low, first, median, third, high = np.quantile(each, (0.05, 0.25, 0.5, 0.75, 0.95))
        axes.plot([low, high], [y, y], color=PALETTE[0], lw=1)
        axes.plot([first, third], [y, y], color=PALETTE[0], lw=7, alpha=0.45, solid_capstyle="butt")
        axes.plot(median, y, "|", color=PALETTE[0], ms=13, mew=2)
    axes.set_yticks(range(len(values)), [*map(printable, values)], parse_math=False)
    axes.set(xlabel=label, ylim=(len(values) - 0.4, -0.6))
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def forest_figure(rows: Sequence[Estimate], baseline: str, claims: Sequence[tuple[float, float] | None] = ()) -> Figure:
    """Differences of arms from the baseline with their intervals; the grey band, one point, counts as equivalent.

    A black cross is the claimed difference of a row, fractions; a range has two, joined by a line.
    """
    colours = [PALETTE[2] if low > 0 else PALETTE[1] if high < 0 else PALETTE[0] for _, _, low, high in rows]
    figure, axes = _estimates(rows, colours)
    axes.axvspan(-1, 1, color="#e6eaee", lw=0, zorder=0)
    axes.axvline(0, color="grey", lw=1, zorder=1)
    for y, claim in enumerate(claims):
        if claim is not None:
            axes.plot([100 * value for value in claim], [y, y], "x-", color="black", ms=7, mew=2)
    label = f"difference from {baseline}, points; 95 % interval over seeds and images"
    axes.set(xlabel=label, ylim=(len(rows) - 0.4, -0.6))
    return figure


def _estimates(rows: Sequence[Estimate], colours: Sequence[str]) -> tuple[Figure, Axes]:
    """Values with intervals, one per line, in per cent."""
    figure = _figure(7.6, 0.9 + 0.42 * len(rows))
    axes = figure.subplots()
    for y, ((_, value, low, high), colour) in enumerate(zip(rows, colours, strict=True)):
        axes.plot([100 * low, 100 * high], [y, y], color=colour, lw=2)
        axes.plot(100 * value, y, "o", color=colour)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], parse_math=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes


def residual(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Noise residual: image minus its Gaussian blur (σ = 1), which contains traces of the generator.

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
    """A row for each class: up to three examples, residual of the first, and spectrum of the class minus the mean.

    Args:
        samples: uint8 (N, H, W, C) for each class's name; more images reduce noise in the spectrum.
    """
    spectra = {name: mean_spectrum(images) for name, images in samples.items()}
    common = np.mean(list(spectra.values()), axis=0)
    limit = max(float(np.abs(spectrum - common).max()) for spectrum in spectra.values())
    figure = _figure(8.6, 1.62 * len(samples) + 0.5)
    grid = figure.subplots(len(samples), 5, squeeze=False)
    for row, (name, images) in zip(grid, samples.items(), strict=True):
        for axes, image in zip(row[:3], images, strict=False):
            axes.imshow(image[..., :3])
        for axes in row[len(images) : 3]:
            axes.set_frame_on(False)
        row[3].imshow(np.clip(128 + 6 * residual(images[:1])[0], 0, 255).astype(np.uint8))
        row[4].imshow(spectra[name] - common, cmap="RdBu_r", vmin=-limit, vmax=limit)
        row[0].set_ylabel(printable(name), fontsize=9, parse_math=False)
    for axes, title in zip(grid[0], ("examples", "", "", "residual × 6 (first)", "spectrum − mean"), strict=True):
        axes.set_title(title, fontsize=9)
    _remove_ticks(grid)
    return figure


def by_class(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str], limit: int
) -> dict[str, NDArray[np.uint8]]:
    """The first images of each class, at most ``limit``, for :func:`classes_figure` and :func:`traces_figure`."""
    return {name: images[np.flatnonzero(labels == label)[:limit]] for label, name in enumerate(classes)}


def traces_figure(samples: Mapping[str, NDArray[np.uint8]]) -> Figure:
    """Mean noise residual of each class, and the mean log power spectrum of its residuals.

    The mean residual shows traces at the same position in every image (a fingerprint: Marra et al. 2019). The spectrum
    also shows periodic traces at any position. All classes share the colour scale of a row.

    Args:
        samples: uint8 (N, H, W, C) for each class's name, N at least 1.
    """
    means = [residual(images).mean(axis=(0, 3)) for images in samples.values()]
    spectra = [mean_spectrum(images) for images in samples.values()]
    limit = float(np.quantile(np.abs(means), 0.99))
    low, high = np.quantile(spectra, (0.01, 0.999))
    figure = _figure(1.9 * len(samples) + 1.1, 4.2)
    grid = figure.subplots(2, len(samples), squeeze=False)
    for column, (name, mean, spectrum) in enumerate(zip(samples, means, spectra, strict=True)):
        above = grid[0, column].imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
        below = grid[1, column].imshow(spectrum, cmap="magma", vmin=low, vmax=high)
        grid[0, column].set_title(name, fontsize=9, parse_math=False)
    for row, image, label in (
        (grid[0], above, "mean residual, grey levels"),
        (grid[1], below, "mean spectrum, log power"),
    ):
        figure.colorbar(image, ax=row.tolist(), label=label, shrink=0.8)
    _remove_ticks(grid)
    return figure


def nearest_figure(
    queries: NDArray[np.uint8],
    labels: NDArray[np.int64],
    neighbours: NDArray[np.uint8],
    neighbour_labels: NDArray[np.int64],
    classes: Sequence[str],
) -> Figure:
    """Images with their nearest neighbours; the frame of a neighbour shows whether its class is the same.

    Args:
        queries: uint8 (Q, H, W, C).
        labels: int64 (Q,), classes of the queries.
        neighbours: uint8 (Q, k, H, W, C), nearest first.
        neighbour_labels: int64 (Q, k).
        classes: Class names, in label order.
    """
    k = neighbour_labels.shape[1]
    figure = _figure(1.5 * (k + 1) + 0.2, 1.75 * len(queries))
    grid = figure.subplots(len(queries), k + 1, squeeze=False)
    for line, query, label, images, others in zip(grid, queries, labels, neighbours, neighbour_labels, strict=True):
        line[0].imshow(query[..., :3])
        line[0].set_title(classes[label], fontsize=8, fontweight="bold", parse_math=False)
        line[0].spines[:].set_visible(False)
        for axes, image, other in zip(line[1:], images, others, strict=True):
            axes.imshow(image[..., :3])
            same = other == label
            axes.set_title(f"{'✓' if same else '✗'} {classes[other]}", fontsize=8, parse_math=False)
            axes.spines[:].set(color=PALETTE[2] if same else PALETTE[1], linewidth=3)
    _remove_ticks(grid)
    return figure


def bands_figure(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Validation accuracy by epoch for each arm: mean over seeds, with a band from the lowest to the highest seed."""
    figure = _figure(7.6, 3.6)
    axes = figure.subplots()
    for (label, curves_of_arm), colour in zip(curves.items(), PALETTE * 9, strict=False):
        length = min(map(len, curves_of_arm))
        accuracies = np.array([curve[:length] for curve in curves_of_arm])
        epochs = np.arange(1, length + 1)
        _plot_band(axes, epochs, accuracies.mean(axis=0), accuracies.min(axis=0), accuracies.max(axis=0), label, colour)
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_grid_and_legend(axes)
    return figure


def knn_figure(curves: Mapping[str, Mapping[int, tuple[float, float, float]]]) -> Figure:
    """Accuracy of KNN by k; for each label (accuracy, low, high) by k, fractions."""
    figure = _figure(6.4, 3.2)
    axes = figure.subplots()
    for (label, by_k), colour in zip(curves.items(), PALETTE, strict=False):
        ks = np.array(sorted(by_k))
        value, low, high = np.array([by_k[k] for k in ks]).T
        _plot_band(axes, ks, value, low, high, label, colour)
    axes.set(xlabel="k", ylabel="accuracy (%)", xticks=sorted({k for by_k in curves.values() for k in by_k}))
    _add_grid_and_legend(axes)
    return figure


def _plot_band(
    axes: Axes, x: NDArray[Any], value: NDArray[Any], low: NDArray[Any], high: NDArray[Any], label: str, colour: str
) -> None:
    axes.plot(x, 100 * value, color=colour, marker="o", ms=3, label=label)
    axes.fill_between(x, 100 * low, 100 * high, color=colour, alpha=0.15, lw=0)


def _add_grid_and_legend(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def recall_figure(classes: Sequence[str], ours: NDArray[Any], paper: Sequence[float | None]) -> Figure:
    """Recall by class: a dot for each seed, a bar at their mean, and a diamond for the paper.

    Args:
        classes: Class names, in label order.
        ours: (seeds, C), fractions; NaN for a class without images.
        paper: The paper's recall by class; None where it has no such class.
    """
    figure = _figure(7.2, 0.9 + 0.42 * len(classes))
    axes = figure.subplots()
    for label, reported in enumerate(paper):
        values = 100 * ours[:, label]
        names = (None, None) if label else ("one seed", "paper")  # one legend entry each
        axes.plot(values, np.full(len(values), label), "o", color=PALETTE[0], alpha=0.6, label=names[0])
        axes.plot([values.mean()] * 2, [label - 0.25, label + 0.25], color=PALETTE[0], lw=2)
        if reported is not None:
            axes.plot(100 * reported, label, "D", color=PALETTE[1], label=names[1])
    axes.set_yticks(range(len(classes)), [*map(printable, classes)], parse_math=False)
    axes.set(xlabel="recall (%)", ylim=(len(classes) - 0.5, -0.5))
    _add_grid_and_legend(axes)
    return figure


def mistakes_figure(rows: Sequence[tuple[str, NDArray[np.uint8], Sequence[float]]]) -> Figure:
    """Contact sheet of the most confident mistakes: a row for each confused pair.

    A row is its label, the images as uint8 (n, H, W, C), and the probability of the wrong class for each image.
    """
    columns = max(len(images) for _, images, _ in rows)
    figure = _figure(1.25 * columns + 1.6, 1.45 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, images, confidence) in zip(grid, rows, strict=True):
        line[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
        for axes, image, p in zip(line, images, confidence, strict=False):
            axes.imshow(image[..., :3])
            axes.set_title(f"{100 * p:.0f} %", fontsize=8, pad=2)
        for axes in line[len(images) :]:
            axes.set_frame_on(False)
    _remove_ticks(grid)
    return figure
