"""Table 8, recall by class, and table 9, test-time augmentation; both on the runs of the main arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable
from deepfake_cls.notation import plural
from deepfake_cls.records import Record
from deepfake_cls.report import paper, table
from deepfake_cls.report.evidence import over_seeds, pair_predictions
from deepfake_cls.report.render import DASH, Table, claim_text, images_text, interval_text, mean_text, percent
from deepfake_cls.report.study import PAPER_DATA, Study
from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.intervals import summarise
from deepfake_cls.stats.verdict import Claim, judge


def paper_recall(study: Study, classes: int) -> list[float | None]:
    """The paper's recall by class; None where the classes are not the paper's."""
    if study.config.data.name != PAPER_DATA:
        return [None] * classes
    recall: list[float | None] = [correct / count for correct, count in paper.RECALL[:classes]]
    return recall + [None] * (classes - len(recall))


@table(8)
def recall_table(study: Study) -> Table:
    """Table 8: recall by class."""
    records = [run.record for run in study.main.runs.values()]
    names = (
        [*map(printable, records[0].data["classes"])] if records else [str(label) for label in range(len(paper.RECALL))]
    )
    reported = paper_recall(study, len(names))
    rows, data = [], []
    for label, name in enumerate(names):
        values = [value for record in records if (value := record.recall[label]) is not None]
        recall = summarise(values) if values else None
        confused = _most_confused(records, label, names)
        rows.append([name, mean_text(recall), percent(reported[label]), confused])
        data.append({"arm": name, "accuracy": None if recall is None else recall.mean})
    notes = study.no_match(study.main)
    notes.append(f"Runs at {study.scale_text}: mean ± standard deviation over n seeds.")
    if study.config.data.name != PAPER_DATA:
        notes.append("The paper's classes are those of data=unibuc, so its recall is not comparable with this data.")
    columns = ["class", "recall %", "paper %", "most often confused with"]
    return Table(8, "table8_recall", "Recall by class", columns, rows, notes, data, filled=bool(records))


def _most_confused(records: Sequence[Record], label: int, names: Sequence[str]) -> str:
    errors = [sum(r.confusion[label][other] for r in records) if other != label else 0 for other in range(len(names))]
    confused = max(range(len(names)), key=lambda other: errors[other])
    return f"{names[confused]} ({errors[confused]} of {sum(errors)} errors)" if errors[confused] else DASH


def compare_tta(study: Study) -> Difference | None:
    """Accuracy with flip TTA minus accuracy without, on the main arm; None if no run was scored with flip TTA.

    Raises:
        InputError: If predictions are missing.
    """
    main = study.main
    seeds = [seed for seed, run in main.runs.items() if "val_acc_flip" in run.record.metrics]
    return pair_predictions(main, main, seeds, "probs_flip", "probs").difference() if seeds else None


@table(9)
def tta_table(study: Study) -> Table:
    """Table 9: flip TTA."""
    notes = study.no_match(study.main)
    notes.append(f"Runs at {study.scale_text}. Flip TTA: mean softmax of an image and its mirror image, same weights.")
    try:
        difference = compare_tta(study)
    except InputError as error:
        difference = None
        notes.append(f"Omitted: {error}")
    plain, flipped = over_seeds(study.main, "val_acc"), over_seeds(study.main, "val_acc_flip")
    gain, word, claim = DASH, DASH, Claim(*paper.TTA_GAIN)
    claimed = study.judge_claim(difference, claim)
    data: dict[str, Any] = {"arm": "flip", "accuracy": None if flipped is None else flipped.mean}
    data |= {"claimed_low": claim.low, "claimed_high": claim.high, "claim": claimed.word}
    if difference is not None:
        verdict = judge(difference)
        gain, word = interval_text(difference), verdict.word
        data |= {"difference": difference.estimate, "low": difference.low, "high": difference.high, "verdict": word}
        size = f"{plural(difference.seeds, 'seed')}, {images_text(difference)} each"
        notes.append(f"flip TTA: {verdict.sentence} ({size}). Claim {claimed.sentence}.{study.scale_caveat}")
    cells = [mean_text(plain), mean_text(flipped), gain, word]
    cells += [str(claim).removesuffix(" points"), claim_text(claimed)]
    columns = ["plain %", "flip TTA %", "gain, points (95 %)", "verdict", "paper's gain, points", "claim"]
    filled = plain is not None
    return Table(9, "table9_tta", "Test-time augmentation", columns, [cells], notes, [data], filled=filled)
