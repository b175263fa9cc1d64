"""The part of the page that shows a study: tables with their figures, and what does not add up."""

from __future__ import annotations

import html
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from matplotlib.figure import Figure

from deepfake_cls.errors import InputError
from deepfake_cls.figures import (
    bands_figure,
    confusions_figure,
    forest_figure,
    mistakes_figure,
    neighbours_figure,
    recall_figure,
)
from deepfake_cls.records import read_predictions
from deepfake_cls.report import paper
from deepfake_cls.report.claims import findings
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import Evidence
from deepfake_cls.report.page import image, validation_images
from deepfake_cls.report.render import Table, as_html, plural
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.tta import compare_tta
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import correct_of

PAIRS, EACH = 5, 6  # of the contact sheet: confused pairs, and mistakes of each


def sections(study: Study, tables: Sequence[Table]) -> list[str]:
    """HTML sections, in order.

    Args:
        study: Experiments with their runs.
        tables: From ``all_tables``.
    """
    parts = [f'<h1>The report\'s tables</h1><p class="lead">Runs at {html.escape(study.scale_text)}.', "</p>"]
    hardware = [
        f"{kind}: {device}, {precision}, {plural(threads, 'thread')}"
        for kind, (device, precision, threads) in sorted(study.hardware.items())
    ]
    more = f" {'; '.join(hardware)}." if hardware else ""
    if study.left_out:
        more += f" Left out, since made on other hardware or data: {plural(study.left_out, 'run')}."
    parts.insert(1, html.escape(more))
    for table in tables:
        parts.append(as_html(table))
        parts += _figures(table, study)
    parts.append('<h1 id="audit">What does not add up</h1><ol>')
    parts += [f"<li><b>{html.escape(f.claim)}</b><br>{html.escape(f.finding)}</li>" for f in findings(study)]
    return [*parts, "</ol>"]


def _figures(table: Table, study: Study) -> list[str]:
    central = [study.central.runs[seed] for seed in sorted(study.central.runs)]
    if table.name in study.experiments and table.number != 1:
        return [image(figure, note) for figure, note in arm_figures(study.evidence[table.name])]
    if table.number == 1:
        return _neighbours(study)
    if table.number == 8 and central:
        return _classes(study, central)
    if table.number == 9:
        with suppress(InputError):  # the table says so
            if (difference := compare_tta(study)) is not None:
                row = ("flip TTA", difference.estimate, difference.low, difference.high)
                return [image(forest_figure([row], "plain"), "Gain by flip TTA; grey: within one point.")]
    return []


def arm_figures(found: Evidence) -> list[tuple[Figure, str]]:
    """An experiment's figures with their captions: differences from the baseline, and learning curves.

    Args:
        found: From ``gather``; what has no runs is left out.
    """
    figures = []
    rows = [
        (
            row.arm.label,
            row.comparison.difference.estimate,
            row.comparison.difference.low,
            row.comparison.difference.high,
        )
        for row in found.rows
        if row.comparison is not None
    ]
    if rows:
        baseline = found.experiment.arms[found.experiment.baseline].label
        figures.append(
            (forest_figure(rows, baseline), "The interval that decides; grey: within one point, equivalent.")
        )
    curves = {
        row.arm.label: [[line["val_acc"] for line in entry.record.history] for entry in row.arm.runs.values()]
        for row in found.rows
        if row.arm.runs
    }
    if curves:
        figures.append((bands_figure(curves), "Mean over seeds; the band reaches from the lowest to the highest seed."))
    return figures


def _neighbours(study: Study) -> list[str]:
    experiment = study.experiments["table1_knn"]
    curves: dict[str, dict[int, tuple[float, float, float]]] = {}
    for arm in experiment.arms:
        for entry in arm.runs.values():
            count = correct_of(entry.record)[1]
            curves[arm.label] = {
                int(k): (found["val_acc"], *wilson(round(found["val_acc"] * count), count))
                for k, found in entry.record.by_k.items()
            }
    if not curves:
        return []
    if study.config.data.name == "unibuc":
        curves["report"] = {k: (value, value, value) for k, value in experiment.by_k.items()}
    return [image(neighbours_figure(curves), "Nearest neighbours over k, with 95 % Wilson intervals.")]


def _classes(study: Study, central: list[Finished]) -> list[str]:
    names = central[0].record.data["classes"]
    recall = np.array([[np.nan if r is None else r for r in entry.record.recall] for entry in central])
    report = None
    if study.config.data.name == "unibuc" and len(names) == len(paper.RECALL):
        report = [right / count for right, count in paper.RECALL]
    counts = np.sum([entry.record.confusion for entry in central], axis=0)
    parts = [
        image(recall_figure(names, recall, report), "Recall by class of the central arm."),
        image(confusions_figure(counts, names), f"The central arm, summed over {len(central)} seeds."),
    ]
    sheet = contact_sheet(central[0])
    if sheet is not None:
        parts.append(
            image(sheet, f"The most confident mistakes of seed {central[0].record.seed}, with their confidence.")
        )
    return parts


def contact_sheet(entry: Finished) -> Figure | None:
    """The most confident mistakes for each of the pairs that are confused most; None where images or they are gone.

    Args:
        entry: A run with predictions.
    """
    split = validation_images(entry.record)
    if split is None:
        return None
    try:
        ids, labels, probs = read_predictions(entry.path / "predictions.npz")
    except InputError:
        return None
    if tuple(ids.tolist()) != split.ids:
        return None
    taken = probs.argmax(axis=1)
    wrong = np.flatnonzero(taken != labels)
    pairs, counts = np.unique(np.stack([labels[wrong], taken[wrong]], axis=1), axis=0, return_counts=True)
    if not len(pairs):
        return None
    names, rows = entry.record.data["classes"], []
    for true, guess in pairs[np.argsort(-counts, kind="stable")][:PAIRS]:
        mine = wrong[(labels[wrong] == true) & (taken[wrong] == guess)]
        surest = mine[np.argsort(-probs[mine, guess], kind="stable")][:EACH]
        label = f"{names[true]}\ntaken for\n{names[guess]}"
        rows.append((label, split.store.images[surest], [float(p) for p in probs[surest, guess]]))
    return mistakes_figure(rows)
