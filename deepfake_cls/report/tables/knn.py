"""Table 1, KNN by k and image statistics, and table 7, these methods compared with the CNN."""

from __future__ import annotations

from typing import Any

from deepfake_cls.report import paper, table
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.report.render import DASH, Table, hardware_text, mean_text, percent
from deepfake_cls.report.study import Study
from deepfake_cls.summary import correct_of, interval_of, time_text


@table(1)
def knn_table(study: Study) -> Table:
    """Table 1: KNN by k, on the images and on images shifted by two pixels; below it image statistics."""
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
    statistics = study.experiments["table1_statistics"]
    for arm in statistics.arms:
        found = next(iter(arm.runs.values()), None)
        accuracy = None if found is None else found.record.metrics["val_acc"]
        rows.append([arm.label, _with_wilson(accuracy, found), DASH, DASH])
        data.append({"arm": arm.label, "reported": None, "accuracy": accuracy, "moved": None})
    notes = study.no_match(*experiment.arms, experiment=experiment)
    notes.append("Exact search on raw RGB pixels, without randomness. Parentheses: 95 % Wilson intervals over images.")
    if plain is not None and "contrast" in plain.record.metrics:
        notes.append(
            f"Contrast: the mean distance to a training image is {plain.record.metrics['contrast']:.2f} times the"
            " distance to the nearest one (median over images); 1 means no contrast."
        )
    if study.shows(statistics):
        notes.append("Image statistics: deepfake-cls statistics, one seed; the paper has no such baseline.")
    columns = ["k", "accuracy %", "shifted by 2 pixels %", "paper %"]
    filled = study.shows(experiment) or study.shows(statistics)
    return Table(1, "table1_knn", experiment.title, columns, rows, notes, data, filled=filled)


@table(7)
def methods_table(study: Study) -> Table:
    """Table 7: KNN and image statistics compared with the CNN, with the time to fit."""
    arm, statistics_arm = (study.experiments[name].arms[0] for name in ("table1_knn", "table1_statistics"))
    knn, statistics = (next(iter(each.runs.values()), None) for each in (arm, statistics_arm))
    runs = list(study.main.runs.values())
    knn_accuracy, accuracy = (None if run is None else run.record.metrics["val_acc"] for run in (knn, statistics))
    cnn = over_seeds(study.main, "val_acc")
    knn_time, time = (DASH if run is None else time_text(run.record.seconds["fit"]) for run in (knn, statistics))
    cnn_time = time_text(sum(run.record.seconds["fit"] for run in runs) / len(runs)) if runs else DASH
    rows = [
        ["KNN, k = 5", _with_wilson(knn_accuracy, knn), percent(paper.KNN_ACCURACY), knn_time, paper.TRAINING["knn"]],
        ["image statistics", _with_wilson(accuracy, statistics), DASH, time, DASH],
        ["CNN", mean_text(cnn), percent(paper.ACCURACY), cnn_time, paper.TRAINING["cnn"]],
    ]
    for row, run in zip(rows, (knn, statistics, runs[0] if runs else None), strict=True):
        row.append(hardware_text(run.record.device, run.record.precision, run.record.threads) if run else DASH)
    data: list[dict[str, Any]] = [
        {"arm": rows[0][0], "accuracy": knn_accuracy},
        {"arm": rows[1][0], "accuracy": accuracy},
        {"arm": rows[2][0], "accuracy": None if cnn is None else cnn.mean},
    ]
    notes = [*study.no_match(arm, experiment=study.experiments["table1_knn"]), *study.no_match(study.main)]
    notes.append("Image statistics: time with extraction. The paper has no such baseline.")
    notes.append(f"CNN: {study.scale_text}. The paper's CNN: width 64, 100 epochs, hardware unknown.")
    columns = ["method", "accuracy %", "paper %", "time to fit", "paper, time", "hardware"]
    filled = knn is not None or statistics is not None or bool(runs)
    return Table(7, "table7_methods", "KNN, image statistics and CNN", columns, rows, notes, data, filled=filled)


def _with_wilson(accuracy: float | None, run: Finished | None) -> str:
    """An accuracy in per cent with its 95 % Wilson interval over the run's images, or a dash."""
    if accuracy is None or run is None:
        return DASH
    count = correct_of(run.record)[1]
    low, high = interval_of(run.record, round(accuracy * count))
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
