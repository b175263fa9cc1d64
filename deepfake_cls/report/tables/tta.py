"""Table 9: test-time augmentation."""

from __future__ import annotations

from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.report import paper, table
from deepfake_cls.report.evidence import measure, over_seeds, paired
from deepfake_cls.report.render import DASH, Table, interval_text, mean_text, plural
from deepfake_cls.report.study import Study
from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.verdict import judge, points


def compare_tta(study: Study) -> Difference | None:
    """Flip TTA less plain, on the central arm's runs; None where none was scored with it.

    Raises:
        InputError: Predictions are missing.
    """
    central = study.central
    seeds = tuple(s for s in sorted(central.runs) if "val_acc_flip" in central.runs[s].record.metrics)
    return measure(*paired(central, central, seeds, "probs_flip", "probs")) if seeds else None


@table(9)
def tta_table(study: Study) -> Table:
    """Table 9: flip TTA on the central arm's runs."""
    central = study.central
    notes = ["Mean of the softmax over each image and its mirror image, on the same weights."]
    try:
        found = compare_tta(study)
    except InputError as error:
        found = None
        notes.append(f"Left out: {error}")
    plain, flipped = over_seeds(central, "val_acc"), over_seeds(central, "val_acc_flip")
    low, high = (points(value) for value in paper.TTA_GAIN)
    cells = [mean_text(plain), mean_text(flipped), DASH, DASH, f"{low} to {high}"]
    data: dict[str, Any] = {"experiment": "table9_tta", "arm": "flip"}
    data["accuracy"] = None if flipped is None else flipped.mean
    if found is not None:
        verdict = judge(found)
        cells[2:4] = [interval_text(found), verdict.word]
        data |= {"difference": found.estimate, "low": found.low, "high": found.high, "verdict": verdict.word}
        size = f"{plural(found.seeds, 'seed')}, {found.images:,} images each"
        notes.append(f"flip TTA: {study.verdict_prefix}{verdict.sentence} ({size}).")
    columns = ["plain %", "flip TTA %", "gain, points (95 %)", "verdict", "report's gain, points"]
    return Table(9, "table9_tta", "Test-time augmentation", columns, [cells], notes, [data])
