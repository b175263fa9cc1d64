"""Table 1: nearest neighbours by k."""

from __future__ import annotations

from deepfake_cls.report import table
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.render import DASH, Table, percent
from deepfake_cls.report.study import Study
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import correct_of


@table(1)
def knn_table(study: Study) -> Table:
    """Table 1: nearest neighbours by k, and after a shift of two pixels."""
    experiment = study.experiments["table1_knn"]
    plain, moved = (next(iter(arm.runs.values()), None) for arm in experiment.arms)
    rows, data = [], []
    ks = sorted({*experiment.by_k, *(int(k) for entry in (plain, moved) if entry for k in entry.record.by_k)})
    for k in ks:
        cells, line = [str(k)], {"experiment": experiment.name, "arm": f"k = {k}", "reported": experiment.by_k.get(k)}
        for name, entry in (("accuracy", plain), ("moved", moved)):
            accuracy = None if entry is None else entry.record.by_k.get(str(k), {}).get("val_acc")
            cells.append(with_wilson(accuracy, entry))
            line[name] = accuracy
        rows.append([*cells, percent(experiment.by_k.get(k))])
        data.append(line)
    notes = ["Exact neighbours on raw RGB pixels; 95 % Wilson intervals over images. Nothing here depends on a seed."]
    if plain is not None and "contrast" in plain.record.metrics:
        notes.append(
            f"Distances concentrate: in the median the images lie {plain.record.metrics['contrast']:.2f} times as"
            " far as the nearest one (1 would be no contrast at all)."
        )
    columns = ["k", "accuracy %", "moved by 2 pixels %", "report %"]
    return Table(1, "table1_knn", "Nearest neighbours", columns, rows, notes, data)


def with_wilson(accuracy: float | None, entry: Finished | None) -> str:
    """An accuracy in per cent with its 95 % Wilson interval over the images of a run; a dash if there is none."""
    if accuracy is None or entry is None:
        return DASH
    count = correct_of(entry.record)[1]
    low, high = wilson(round(accuracy * count), count)
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
