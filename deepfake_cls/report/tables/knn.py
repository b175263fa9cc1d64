"""Table 1, KNN by k, and table 7, KNN compared with the CNN."""

from __future__ import annotations

from typing import Any

from deepfake_cls.report import paper, table
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.report.render import DASH, Table, hardware_text, mean_text, percent
from deepfake_cls.report.study import Study
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import correct_of, time_text


@table(1)
def knn_table(study: Study) -> Table:
    """Table 1: KNN by k, on the images and on images shifted by two pixels."""
    experiment = study.experiments["table1_knn"]
    plain, shifted = (next(iter(arm.runs.values()), None) for arm in experiment.arms)
    rows, data = [], []
    for k in sorted({*experiment.by_k, *(int(k) for run in (plain, shifted) if run for k in run.record.by_k)}):
        accuracies = [
            None if run is None else run.record.by_k.get(str(k), {}).get("val_acc") for run in (plain, shifted)
        ]
        cells = [_with_wilson(accuracy, run) for accuracy, run in zip(accuracies, (plain, shifted), strict=True)]
        reported = experiment.by_k.get(k)
        rows.append([str(k), *cells, percent(reported)])
        data.append({"arm": f"k = {k}", "reported": reported, "accuracy": accuracies[0], "moved": accuracies[1]})
    notes = study.no_match(*experiment.arms, experiment=experiment)
    notes.append("Exact search on raw RGB pixels, without randomness. Parentheses: 95 % Wilson intervals over images.")
    if plain is not None and "contrast" in plain.record.metrics:
        notes.append(
            f"Contrast: the mean distance to a training image is {plain.record.metrics['contrast']:.2f} times the"
            " distance to the nearest one (median over images); 1 means no contrast."
        )
    columns = ["k", "accuracy %", "shifted by 2 pixels %", "paper %"]
    filled = study.shows(experiment)
    return Table(1, "table1_knn", experiment.title, columns, rows, notes, data, filled=filled)


@table(7)
def methods_table(study: Study) -> Table:
    """Table 7: KNN compared with the CNN, with the time to fit."""
    arm = study.experiments["table1_knn"].arms[0]
    knn = next(iter(arm.runs.values()), None)
    runs = list(study.main.runs.values())
    knn_accuracy = None if knn is None else knn.record.metrics["val_acc"]
    cnn = over_seeds(study.main, "val_acc")
    knn_time = DASH if knn is None else time_text(knn.record.seconds["fit"])
    cnn_time = time_text(sum(run.record.seconds["fit"] for run in runs) / len(runs)) if runs else DASH
    rows = [
        ["KNN, k = 5", _with_wilson(knn_accuracy, knn), percent(paper.KNN_ACCURACY), knn_time, paper.TRAINING["knn"]],
        ["CNN", mean_text(cnn), percent(paper.ACCURACY), cnn_time, paper.TRAINING["cnn"]],
    ]
    for row, run in zip(rows, (knn, runs[0] if runs else None), strict=True):
        row.append(hardware_text(run.record.device, run.record.precision, run.record.threads) if run else DASH)
    data: list[dict[str, Any]] = [
        {"arm": rows[0][0], "accuracy": knn_accuracy},
        {"arm": rows[1][0], "accuracy": None if cnn is None else cnn.mean},
    ]
    notes = [*study.no_match(arm, experiment=study.experiments["table1_knn"]), *study.no_match(study.main)]
    notes.append(f"CNN: {study.scale_text}. The paper's CNN: width 64, 100 epochs, hardware unknown.")
    columns = ["method", "accuracy %", "paper %", "time to fit", "paper, time", "hardware"]
    filled = knn is not None or bool(runs)
    return Table(7, "table7_methods", "KNN and CNN", columns, rows, notes, data, filled=filled)


def _with_wilson(accuracy: float | None, run: Finished | None) -> str:
    """An accuracy in per cent with its 95 % Wilson interval over the run's images, or a dash."""
    if accuracy is None or run is None:
        return DASH
    count = correct_of(run.record)[1]
    low, high = wilson(round(accuracy * count), count)
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
