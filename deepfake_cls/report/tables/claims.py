"""The claims of the paper with a verdict on each, from the evidence of the tables; and what does not add up in it."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.records import Record
from deepfake_cls.report import paper
from deepfake_cls.report.datasets import Configuration, estimate
from deepfake_cls.report.evidence import claim_p
from deepfake_cls.report.render import DASH, Table, claim_text, images_text, interval_text, percent
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.discrepancies import findings
from deepfake_cls.report.tables.main_arm import compare_tta
from deepfake_cls.stats.compare import Difference, difference_of_metrics
from deepfake_cls.stats.verdict import Claim, ClaimVerdict, holm
from deepfake_cls.summary import correct_of, groups_text, interval_of

MORE, LESS = Claim(0, inf), Claim(-inf, 0)
COLUMNS = ["claim of the paper", "paper", "verdict", "our runs (95 %)", "scale", "to settle it"]


@dataclass(frozen=True)
class ArmClaim:
    """A claim about an arm of an experiment.

    Attributes:
        text: The claim.
        experiment: Name of the experiment.
        arm: Index of the arm that is compared with the baseline.
        claim: The claimed difference; None for the difference of the paper's accuracies.
        metric: ``acc``; ``gap``, training accuracy minus validation accuracy; or ``overconfidence``.
    """

    text: str
    experiment: str
    arm: int
    claim: Claim | None = None
    metric: str = "acc"


ARM_CLAIMS = (
    ArmClaim("RGBA is better than RGB", "table6_alpha", 1),
    ArmClaim("dropout 0 is worse than 0.3", "table5_dropout", 0),
    ArmClaim("dropout 0.5 is worse than 0.3", "table5_dropout", 2),
    ArmClaim("1/3 of the learning rate is worse", "table4_lr", 0),
    ArmClaim("3⅓ times the learning rate is worse", "table4_lr", 2),
    ArmClaim("without CutMix: more overfitting (train − validation)", "table10_components", 1, MORE, "gap"),
    ArmClaim(
        "without label smoothing: overconfident (confidence − accuracy)",
        "table10_components",
        2,
        MORE,
        "overconfidence",
    ),
    ArmClaim("without skips: worse", "table10_components", 3, LESS),
)


@dataclass(frozen=True)
class Tested:
    """A row of the table.

    Attributes:
        text: The claim.
        paper: The paper's number.
        verdict: Ours.
        ours: Our number with its interval and n; a dash without runs.
        scale: Of the runs.
        settle: What would settle the claim.
        data: The row of ``tables.csv``.
    """

    text: str
    paper: str
    verdict: ClaimVerdict
    ours: str
    scale: str
    settle: str
    data: dict[str, Any]


def claims_tables(study: Study) -> list[Table]:
    """The verdicts on the claims of the paper, and its discrepancies; nothing if no run tests a claim."""
    if study.claims_untested:
        return []
    rows = [_accuracy(study), _knn(study), _shift(study), *_arm_claims(study), _tta(study)]
    if all(row.verdict.word == "not tested" for row in rows):
        return []
    cells = [[r.text, r.paper, claim_text(r.verdict), r.ours, r.scale, r.settle] for r in rows]
    notes = [
        f"Runs at {study.scale_text}. Differences in points: the arm that the claim names first minus the other, as in"
        " tables 4 to 10. n: seeds. The paper has no number where it says more or less than 0.",
        "Excluded: the paper's difference lies outside our interval, and its p value is below 0.05 after correction for"
        " the claims of the same table (Holm). Compatible: it is not excluded; as is 0: the interval contains 0 too, so"
        " the claim is neither excluded nor supported.",
        "Intervals: over seeds and images; for overfitting and overconfidence, paired t over seeds on the same images;"
        " for KNN, which has no randomness, over images.",
        "To settle it: scale=reference is the paper's own scale (make reference DATA=PATH, on a GPU); experiment=NAME"
        f" stands for its runs at scale {study.scale}.",
    ]
    discrepancies = [[finding.claim, finding.finding] for finding in findings(study)]
    return [
        Table(None, "claims", "Claims of the paper", COLUMNS, cells, notes, [row.data for row in rows]),
        Table(None, "discrepancies", "What does not add up", ["the paper", "the numbers"], discrepancies),
    ]


def _accuracy(study: Study) -> Tested:
    """The paper's accuracy, which only its own scale tests."""
    text, reported, runs = "accuracy of the network", paper.ACCURACY, tuple(study.main.runs.values())
    verdict, ours, interval = ClaimVerdict("not tested", ""), DASH, None
    if runs:
        configuration = Configuration("cnn", runs)
        mean, *interval = estimate(configuration.counts, configuration.effective)
        ours = f"{_share(mean, *interval)}, n = {len(runs)}"
        if study.scale == "reference" and len(runs) > 1:
            verdict = _judge_value(reported, *interval)
    missing = "scale=reference" if study.scale != "reference" else DASH if len(runs) > 1 else "two seeds"
    return _of_value(text, reported, verdict, ours, study.scale, missing)


def _knn(study: Study) -> Tested:
    """The paper's accuracy of KNN."""
    text, reported = "accuracy of KNN on pixels, k = 5", paper.KNN_ACCURACY
    run = next(iter(study.experiments["table1_knn"].arms[0].runs.values()), None)
    if run is None:
        return _of_value(text, reported, ClaimVerdict("not tested", ""), DASH, DASH, "experiment=table1_knn")
    accuracy, count = run.record.metrics["val_acc"], correct_of(run.record)[1]
    low, high = interval_of(run.record, round(accuracy * count))
    ours = f"{_share(accuracy, low, high)}, {count:,} images{groups_text(run.record)}"
    return _of_value(text, reported, _judge_value(reported, low, high), ours, DASH, DASH)


def _shift(study: Study) -> Tested:
    """The paper says that small shifts change what KNN finds."""
    comparison = study.evidence["table1_knn"].rows[1].comparison
    # KNN has no randomness, so the interval of its one run over images is complete.
    difference = None if comparison is None else replace(comparison.difference, seeds_ignored=False)
    row = _row(study, "KNN on images shifted by 2 pixels is worse", LESS, difference, None, "", DASH)
    if difference is None:
        return replace(row, settle="experiment=table1_knn")
    images = row.verdict.images_needed
    settle = f"about {images:,} images" if images else "more images" if row.verdict.undecided else DASH
    return replace(row, ours=f"{interval_text(difference)}, {images_text(difference)}", settle=settle)


def _arm_claims(study: Study) -> list[Tested]:
    """The claims about arms, corrected over the claims of each experiment."""
    families: dict[str, list[ArmClaim]] = defaultdict(list)
    for claimed in ARM_CLAIMS:
        families[claimed.experiment].append(claimed)
    rows = []
    for name, family in families.items():
        claims = [claimed.claim or study.experiments[name].claim(claimed.arm) for claimed in family]
        differences = [_difference(study, claimed) for claimed in family]
        p_values = holm([claim_p(d, claim) for d, claim in zip(differences, claims, strict=True)])
        for claimed, claim, difference, p in zip(family, claims, differences, p_values, strict=True):
            rows.append(_row(study, claimed.text, claim, difference, p, f"experiment={name}", study.scale))
    return rows


def _tta(study: Study) -> Tested:
    """The paper's gain from flip TTA."""
    difference = None
    with suppress(InputError):  # table 9 contains the error
        difference = compare_tta(study)
    return _row(study, "flip TTA improves accuracy", Claim(*paper.TTA_GAIN), difference, None, "tta=flip", study.scale)


def _difference(study: Study, claimed: ArmClaim) -> Difference | None:
    """Arm minus baseline in the metric of a claim, over their common seeds; None without runs."""
    row = study.evidence[claimed.experiment].rows[claimed.arm]
    if row.comparison is None or claimed.metric == "acc":
        return None if row.comparison is None else row.comparison.difference
    experiment = study.experiments[claimed.experiment]
    baseline, seeds = experiment.arms[experiment.baseline], row.comparison.seeds
    values = [[_metric(arm.runs[seed].record, claimed.metric) for seed in seeds] for arm in (row.arm, baseline)]
    a, b = ([value for value in side if value is not None] for side in values)
    if len(seeds) < 2 or not len(a) == len(b) == len(seeds):
        return None
    return difference_of_metrics(a, b, row.comparison.difference.images)


def _metric(record: Record, name: str) -> float | None:
    metrics = record.metrics
    if name == "gap":
        return metrics["train_acc"] - metrics["val_acc"] if "train_acc" in metrics else None
    return metrics.get(f"val_{name}")


def _judge_value(reported: float, low: float, high: float) -> ClaimVerdict:
    """Whether a reported accuracy lies inside our interval."""
    return ClaimVerdict("compatible" if low <= reported <= high else "excluded", "")


def _of_value(text: str, reported: float, verdict: ClaimVerdict, ours: str, scale: str, settle: str) -> Tested:
    """The row of a claimed accuracy."""
    data = _data(text, Claim(reported, reported), verdict)
    return Tested(text, f"{percent(reported)} %", verdict, ours, scale, settle, data)


def _share(value: float, low: float, high: float) -> str:
    return f"{percent(value)} ({percent(low)} to {percent(high)}) %"


def _row(
    study: Study, text: str, claim: Claim | None, difference: Difference | None, p: float | None, runs: str, scale: str
) -> Tested:
    """The row of a claimed difference; ``runs`` says which runs it needs."""
    assert claim is not None  # the paper has a number or a direction for each of these arms
    verdict = study.judge_claim(difference, claim, p)
    data = _data(text, claim, verdict)
    ours = DASH
    if difference is not None:
        ours = f"{interval_text(difference)}, n = {difference.seeds}"
        data |= {"difference": difference.estimate, "low": difference.low, "high": difference.high}
        data |= {"pairs": difference.seeds}
        if verdict.word != "not tested":
            data["claim_p_holm"] = difference.p_of(claim.low, claim.high) if p is None else p
    return Tested(text, str(claim), verdict, ours, scale, _to_settle(study, verdict, runs), data)


def _data(text: str, claim: Claim, verdict: ClaimVerdict) -> dict[str, Any]:
    return {"arm": text, "claimed_low": claim.low, "claimed_high": claim.high, "claim": verdict.word}


def _to_settle(study: Study, verdict: ClaimVerdict, runs: str) -> str:
    """What is missing at this scale, and the paper's own scale."""
    steps = []
    if verdict.word == "not tested":
        steps.append(runs)
    elif verdict.undecided and verdict.seeds_needed is not None:
        steps.append(f"about {verdict.seeds_needed} seeds")
    elif verdict.undecided:
        images = verdict.images_needed
        steps.append("more seeds and images" if images is None else f"about {images:,} images")
    if study.scale != "reference":
        steps.append("scale=reference")
    return ", ".join(steps) or DASH
