"""Table 8: recall by class."""

from __future__ import annotations

from collections.abc import Sequence

from deepfake_cls.records import Record
from deepfake_cls.report import paper, table
from deepfake_cls.report.render import DASH, Table, mean_text
from deepfake_cls.report.study import Study
from deepfake_cls.stats.intervals import summarise


@table(8)
def recall_table(study: Study) -> Table:
    """Table 8: recall by class of the central arm."""
    runs = [study.central.runs[seed].record for seed in sorted(study.central.runs)]
    rows, data = [], []
    same = study.config.data.name == "unibuc"  # only there are the classes those of the paper
    names = runs[0].data["classes"] if runs else [str(label) for label in range(len(paper.RECALL))]
    for label, name in enumerate(names):
        values = [value for record in runs if (value := record.recall[label]) is not None]
        told = paper.RECALL[label] if same and label < len(paper.RECALL) else None
        found = summarise(values) if values else None
        taken = _taken_for(runs, label, names)
        rows.append([name, mean_text(found), DASH if told is None else f"{100 * told[0] / told[1]:.1f}", taken])
        data.append({"experiment": "table8_recall", "arm": name, "accuracy": None if found is None else found.mean})
    notes = [f"The central arm at {study.scale_text}: mean ± standard deviation over n seeds."]
    if not same:
        notes.append("The report's classes are the competition's generators: no figure of its own stands beside these.")
    columns = ["class", "recall %", "report %", "most often taken for"]
    return Table(8, "table8_recall", "Recall by class", columns, rows, notes, data)


def _taken_for(records: Sequence[Record], label: int, names: Sequence[str]) -> str:
    if not records:
        return DASH
    wrong = [sum(r.confusion[label][other] for r in records) if other != label else 0 for other in range(len(names))]
    most = max(range(len(names)), key=lambda other: wrong[other])
    return f"{names[most]} ({wrong[most]} of {sum(wrong)} errors)" if wrong[most] else DASH
