"""Table 7: nearest neighbours beside the network."""

from __future__ import annotations

from deepfake_cls.report import paper, table
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.report.render import DASH, Table, mean_text, percent, plural
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.neighbours import with_wilson
from deepfake_cls.summary import minutes


@table(7)
def methods_table(study: Study) -> Table:
    """Table 7: neighbours beside the network, with training time."""
    knn = next(iter(study.experiments["table1_knn"].arms[0].runs.values()), None)
    rows, data = [], []
    accuracy = None if knn is None else knn.record.metrics["val_acc"]
    seconds = None if knn is None else knn.record.seconds["fit"]
    name = "nearest neighbours, k = 5"
    rows.append([name, with_wilson(accuracy, knn), percent(paper.KNN_ACCURACY), _time(seconds)])
    rows[-1] += [paper.TRAINING["knn"], _hardware(knn)]
    data.append({"experiment": "table7_methods", "arm": name, "accuracy": accuracy})
    runs = list(study.central.runs.values())
    found = over_seeds(study.central, "val_acc")
    times = [entry.record.seconds["fit"] for entry in runs]
    rows.append(["residual CNN", mean_text(found), percent(paper.ACCURACY)])
    rows[-1] += [_time(sum(times) / len(times) if times else None), paper.TRAINING["cnn"]]
    rows[-1].append(_hardware(runs[0] if runs else None))
    data.append(
        {"experiment": "table7_methods", "arm": "residual CNN", "accuracy": None if found is None else found.mean}
    )
    notes = [f"The network at {study.scale_text}; the report's at width 64 and 100 epochs, hardware not named."]
    columns = ["method", "accuracy %", "report %", "time to fit", "report, time", "hardware"]
    return Table(7, "table7_methods", "Neighbours and network", columns, rows, notes, data)


def _time(seconds: float | None) -> str:
    return DASH if seconds is None else minutes(seconds)


def _hardware(entry: Finished | None) -> str:
    if entry is None:
        return DASH
    record = entry.record
    return f"{record.device}, {record.precision}, {plural(record.threads, 'thread')}"
