"""The figures of the page, with their captions, from runs and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepfake_cls import figures
from deepfake_cls.data import source
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable
from deepfake_cls.notation import plural
from deepfake_cls.records import Record, read_predictions
from deepfake_cls.report import paper
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.datasets import INTERVALS, Configuration, DataSet, estimate, settings_texts
from deepfake_cls.report.evidence import Evidence
from deepfake_cls.report.render import Table
from deepfake_cls.report.study import PAPER_DATA, Study
from deepfake_cls.report.tables.main_arm import compare_tta, paper_recall
from deepfake_cls.summary import correct_of, interval_of

Plot = tuple[Figure, str]  # figure and caption

SPECTRUM_IMAGES = 200  # images of a class for its mean spectrum
CONFUSED_PAIRS, MISTAKES_PER_PAIR = 5, 6
CONFIGURATIONS = 30  # in one figure
CROSS = "Cross: the paper's difference."
SHEET = "Most confident mistakes of seed {}, with the probability of the wrong class."


def accuracy_plot(headlines: Sequence[Configuration], names: Mapping[str, str]) -> Plot:
    """Accuracies with their intervals, for KNN one for each k; names are by kind."""
    rows: list[figures.Estimate] = []
    for headline in headlines:
        if headline.kind != "knn":
            rows.append((names[headline.kind], *estimate(headline.counts, headline.effective)))
            continue
        by_k = [run.record.by_k for run in headline.runs]
        for k in sorted(set[str]().union(*by_k), key=int):
            scored = [(each[k]["val_acc"], n) for each, (_, n) in zip(by_k, headline.counts, strict=True) if k in each]
            counts = [(round(accuracy * n), n) for accuracy, n in scored]
            rows.append((f"KNN, k = {k}", *estimate(counts, headline.effective)))
    chance = 1 / len(headlines[0].runs[0].record.data["classes"])
    return figures.accuracy_figure(rows, chance), INTERVALS


def configurations_plot(data: DataSet, names: Mapping[str, str]) -> Plot:
    """Accuracies of the configurations on a data set with their intervals; names are by kind."""
    shown = data.configurations[:CONFIGURATIONS]
    texts = settings_texts(shown)
    rows = [(f"{names[c.kind]} {text}", *estimate(c.counts, c.effective)) for c, text in zip(shown, texts, strict=True)]
    omitted = len(data.configurations) - len(shown)
    caption = f"{INTERVALS} {omitted} more configurations are not shown." if omitted else INTERVALS
    return figures.accuracy_figure(rows, 1 / len(data.classes)), caption


def confusion_plot(headline: Configuration, title: str) -> Plot:
    """Confusion matrix, summed over seeds."""
    return figures.confusion_figure(headline.confusion, headline.runs[0].record.data["classes"], title), ""


def learning_plot(headline: Configuration) -> Plot | None:
    """Learning curves of the first seed; None without a history."""
    record = headline.runs[0].record
    if not record.history:
        return None
    seed = f"Seed {record.seed}. " if len(headline.runs) > 1 else ""
    caption = f"{seed}The training loss is higher, since its images are augmented and mixed and its labels smoothed."
    return figures.learning_figure({"CNN": record.history}), caption


def classes_plot(record: Record) -> Plot | None:
    """Examples and mean spectra of each class; None if the run's images are not available."""
    split = validation_images(record)
    names = record.data["classes"]
    if split is None or not set(range(len(names))) <= set(split.labels.tolist()):
        return None
    samples = figures.by_class(split.store.images, split.labels, names, SPECTRUM_IMAGES)
    caption = (
        "Each row: up to three images of a class; the residual of the first (image minus its Gaussian blur, σ = 1,"
        " times 6); the class's mean log power spectrum of residuals minus the mean over classes (red: more power; zero"
        " frequency in the centre)."
    )
    return figures.classes_figure(samples), caption


def table_plots(table: Table, study: Study) -> list[Plot]:
    """The figures below a table."""
    if table.number == 1:
        return _knn_plots(study)
    if table.name in study.experiments:
        return arm_figures(study.evidence[table.name], claims=not study.claims_untested)
    if table.number == 8 and study.main.runs:
        return _main_arm_plots(study, list(study.main.runs.values()))
    if table.number == 9:
        with suppress(InputError):  # the table's notes contain the error
            if (d := compare_tta(study)) is not None:
                claims = [] if study.claims_untested else [paper.TTA_GAIN]
                figure = figures.forest_figure([("flip TTA", d.estimate, d.low, d.high)], "plain", claims)
                caption = "Gain from flip TTA. Grey band: within one point (equivalent)."
                return [(figure, f"{caption} {CROSS}" if claims else caption)]
    return []


def arm_figures(evidence: Evidence, claims: bool = False) -> list[Plot]:
    """An experiment's figures: differences from the baseline, and learning curves; only those that have runs.

    With ``claims``, the differences of the paper too.
    """
    plots = []
    compared = [(row.arm.label, row.comparison) for row in evidence.rows if row.comparison is not None]
    if compared:
        baseline = evidence.experiment.arms[evidence.experiment.baseline].label
        differences = [(label, comparison.difference) for label, comparison in compared]
        rows = [(label, d.estimate, d.low, d.high) for label, d in differences]
        claimed = [(c.low, c.high) if claims and (c := each.claim) is not None else None for _, each in compared]
        caption = "Differences from the baseline with 95 % intervals. Grey band: within one point (equivalent)."
        caption = f"{caption} {CROSS}" if any(claimed) else caption
        plots.append((figures.forest_figure(rows, baseline, claimed), caption))
    curves = {
        row.arm.label: [[line["val_acc"] for line in run.record.history] for run in row.arm.runs.values()]
        for row in evidence.rows
        if row.arm.runs
    }
    if curves:
        caption = "Learning curves: mean over seeds; the band spans the lowest and the highest seed."
        plots.append((figures.bands_figure(curves), caption))
    return plots


def _knn_plots(study: Study) -> list[Plot]:
    experiment = study.experiments["table1_knn"]
    curves: dict[str, dict[int, tuple[float, float, float]]] = {}
    for arm in experiment.arms:
        for run in arm.runs.values():
            count = correct_of(run.record)[1]
            curves[arm.label] = {
                int(k): (metrics["val_acc"], *interval_of(run.record, round(metrics["val_acc"] * count)))
                for k, metrics in run.record.by_k.items()
            }
    if not curves:
        return []
    if study.config.data.name == PAPER_DATA:
        curves["paper"] = {k: (value, value, value) for k, value in experiment.by_k.items()}
    return [(figures.knn_figure(curves), "KNN accuracy by k with 95 % Wilson intervals.")]


def _main_arm_plots(study: Study, runs: Sequence[Finished]) -> list[Plot]:
    names = runs[0].record.data["classes"]
    recall = np.array([[np.nan if r is None else r for r in run.record.recall] for run in runs])
    counts = np.sum([run.record.confusion for run in runs], axis=0)
    plots = [
        (figures.recall_figure(names, recall, paper_recall(study, len(names))), "Recall by class of the main arm."),
        (
            figures.confusion_figure(counts, names),
            f"Confusion matrix of the main arm, summed over {plural(len(runs), 'seed')}: counts and % of true class.",
        ),
    ]
    sheet = contact_sheet(runs[0])
    return plots if sheet is None else [*plots, (sheet, SHEET.format(runs[0].record.seed))]


def contact_sheet(run: Finished) -> Figure | None:
    """The most confident mistakes for each of the most confused pairs; None without mistakes, images or predictions."""
    split = validation_images(run.record)
    if split is None:
        return None
    try:
        ids, labels, probs = read_predictions(run.path / "predictions.npz")
    except InputError:
        return None
    if tuple(ids.tolist()) != split.ids:
        return None
    predicted = probs.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    if not len(pairs):
        return None
    names, rows = [*map(printable, run.record.data["classes"])], []
    for true, guess in pairs[np.argsort(-counts, kind="stable")][:CONFUSED_PAIRS]:
        mistakes = wrong[(labels[wrong] == true) & (predicted[wrong] == guess)]
        confident = mistakes[np.argsort(-probs[mistakes, guess], kind="stable")][:MISTAKES_PER_PAIR]
        label = f"true: {names[true]}\npredicted:\n{names[guess]}"
        rows.append((label, split.store.images[confident], [float(p) for p in probs[confident, guess]]))
    return figures.mistakes_figure(rows)


def validation_images(record: Record) -> SplitImages | None:
    """The validation images of a run, or None if they are no longer available."""
    settings: dict[str, Any] = record.config["data"]
    try:
        config = source[settings["name"]].Config(**settings)
        height, width = record.data["size"]
        return open_images(read_manifest(config), "validation", config, progress=False, size=(height, width))
    except InputError:
        return None
