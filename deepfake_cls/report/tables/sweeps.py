"""The tables of a declared experiment: its arms with their evidence, and their training behaviour."""

from __future__ import annotations

from dataclasses import replace
from math import hypot, sqrt
from typing import Any

from deepfake_cls.notation import plural
from deepfake_cls.report import paper
from deepfake_cls.report.evidence import Row, over_seeds
from deepfake_cls.report.render import DASH, Table, claim_text, images_text, interval_text, mean_text, percent
from deepfake_cls.report.study import Study
from deepfake_cls.stats.intervals import Summary
from deepfake_cls.stats.verdict import Claim, ClaimVerdict, points


def sweep_tables(study: Study, number: int) -> list[Table]:
    """Make the tables of all trained experiments with a table number."""
    experiments = [
        each
        for each in study.experiments.values()
        if each.table == number and each.entry == "train" and study.includes(each)
    ]
    tables = [make(study, e.name) for e in experiments if not e.grid for make in (arms_table, remarks_table)]
    return tables + [grid_table(study, each.name) for each in experiments if each.grid]


def arms_table(study: Study, name: str) -> Table:
    """The arms of an experiment: accuracy over seeds, difference from the baseline, verdict."""
    evidence = study.evidence[name]
    experiment = evidence.experiment
    columns = ["arm", "accuracy %", "paper %", "difference, points (95 %)", "p (Holm)", "verdict"]
    claims = [experiment.claim(index) for index in range(len(experiment.arms))]
    rows = [_arm_cells(row, index == experiment.baseline) for index, row in enumerate(evidence.rows)]
    if any(claims):
        columns += ["paper's difference, points", "claim"]
        for index, (cells, row) in enumerate(zip(rows, evidence.rows, strict=True)):
            cells += [DASH, DASH] if index == experiment.baseline else _claim_cells(study, row, claims[index])
    notes = study.no_match(*experiment.arms, experiment=experiment)
    notes += [_verdicts(study, row) for row in evidence.rows if row.comparison is not None]
    notes += [
        f"Failed: {row.arm.label}, seed {seed}: {' '.join(error.split())}"
        for row in evidence.rows
        for seed, error in row.arm.failed.items()
    ]
    notes += [f"Omitted: {problem}" for problem in evidence.problems]
    notes.append(
        f"Runs at {study.scale_text}.{study.scale_caveat} Accuracy after the last epoch: mean ± standard deviation over"
        " n seeds. Difference: 95 % interval over seeds and images. p: corrected for the number of arms (Holm)."
    )
    if any(claims):
        notes.append(_claim_note(study))
    if experiment.note:
        notes.append(experiment.note)
    data = [_arm_data(row) | _claim_data(study, row, claim) for row, claim in zip(evidence.rows, claims, strict=True)]
    details = [_detail(row) for row in evidence.rows if row.comparison is not None]
    if not study.claims_untested:
        baseline = experiment.arms[experiment.baseline].reported
        details += [_paper_noise(row, baseline) for row in evidence.rows if row.comparison and row.comparison.claim]
    filled = study.shows(experiment)
    return Table(experiment.table, name, experiment.title, columns, rows, notes, data, details, filled)


def remarks_table(study: Study, name: str) -> Table:
    """The training behaviour of the arms of an experiment, next to the paper's remarks."""
    evidence = study.evidence[name]
    rows = []
    recomputed = [over_seeds(row.arm, "val_acc_recomputed") for row in evidence.rows]
    for row in evidence.rows:
        curve = row.curve
        cells = [row.arm.label, DASH if curve.epochs_to_95 is None else f"{curve.epochs_to_95:.1f}"]
        cells += [percent(curve.oscillation), mean_text(row.train), percent(row.arm.reported_train)]
        cells += [DASH if curve.gap is None else points(curve.gap), DASH if curve.ece is None else f"{curve.ece:.3f}"]
        rows.append([*cells, row.arm.remark or DASH])
    columns = ["arm", "epochs to 95 %", "oscillation, points", "train %", "paper, train %"]
    columns += ["train − validation, points", "ECE", "paper's remark"]
    notes = [
        "Means over seeds. Epochs to 95 %: first epoch with 95 % of the final validation accuracy. Oscillation:"
        " standard deviation of the change in validation accuracy between epochs, second half of the training. Train:"
        " accuracy on training images without augmentation. ECE: expected calibration error."
    ]
    if any(recomputed):
        columns.insert(-1, "accuracy with recomputed statistics %")
        for cells, accuracy in zip(rows, recomputed, strict=True):
            cells.insert(-1, mean_text(accuracy))
        notes.append(
            "Accuracy with recomputed statistics: those of batch normalisation, from 2,500 training images after the"
            " last epoch. The running statistics, which the other accuracies use, are those of the last twenty or so"
            " batches."
        )
    title = f"{evidence.experiment.title}, training behaviour"
    filled = study.shows(evidence.experiment)
    return Table(evidence.experiment.table, f"{name}_remarks", title, columns, rows, notes, filled=filled)


def grid_table(study: Study, name: str) -> Table:
    """Accuracies by two settings, and which value of the second is best for each value of the first."""
    evidence = study.evidence[name]
    experiment = evidence.experiment
    cells: dict[str, dict[str, Summary | None]] = {}
    for row in evidence.rows:
        first, second = row.arm.overrides
        cells.setdefault(first, {})[second] = row.accuracy
    rows = []
    for first, by_second in cells.items():
        means = {second: summary.mean for second, summary in by_second.items() if summary is not None}
        best = [second for second, mean in means.items() if mean == max(means.values())]
        complete = len(means) == len(by_second)
        rows.append([first, *map(mean_text, by_second.values()), ", ".join(best) if complete else DASH])
    columns = ["", *(f"{second}, accuracy %" for second in next(iter(cells.values()))), "best"]
    notes = study.no_match(*experiment.arms, experiment=experiment)
    notes.append(
        "Accuracy after the last epoch. The best value has the highest mean, which with few seeds is no verdict."
    )
    data = [_arm_data(replace(row, comparison=None)) for row in evidence.rows]  # a grid has no baseline
    filled = sum(any(summary is not None for summary in each.values()) for each in cells.values()) > 1
    return Table(experiment.table, f"{name}_grid", experiment.title, columns, rows, notes, data, filled=filled)


def _arm_cells(row: Row, baseline: bool) -> list[str]:
    comparison = row.comparison
    cells = [row.arm.label, mean_text(row.accuracy), percent(row.arm.reported)]
    if comparison is None:
        return [*cells, "baseline" if baseline else DASH, DASH, DASH]
    return [*cells, interval_text(comparison.difference), f"{comparison.p_adjusted:.2g}", comparison.verdict.word]


def _claim_cells(study: Study, row: Row, claim: Claim | None) -> list[str]:
    verdict = _claim_verdict(study, row, claim)
    return [DASH if claim is None else points(claim.low), claim_text(verdict)]


def _claim_verdict(study: Study, row: Row, claim: Claim | None) -> ClaimVerdict:
    comparison = row.comparison
    if comparison is None:
        return study.judge_claim(None, claim)
    return study.judge_claim(comparison.difference, claim, comparison.claim_p)


def _verdicts(study: Study, row: Row) -> str:
    """The verdict on the difference, and on the paper's claim if it is tested."""
    comparison = row.comparison
    assert comparison is not None
    text = f"{row.arm.label}: {comparison.verdict.sentence}"
    verdict = _claim_verdict(study, row, comparison.claim)
    return text if verdict.word == "not tested" else f"{text}. Claim {verdict.sentence}"


def _claim_note(study: Study) -> str:
    if study.claims_untested:
        return f"Claims are not tested: {study.claims_untested}."
    return (
        "Claim: the paper's difference is excluded if it lies outside our interval and its p value is below 0.05 after"
        " correction for the number of claims (Holm); else it is compatible. The paper's difference comes from one run"
        " of each arm and is taken as exact."
    )


def _claim_data(study: Study, row: Row, claim: Claim | None) -> dict[str, Any]:
    """The columns of a claim in ``tables.csv``; none if the paper has no number."""
    if claim is None:
        return {}
    verdict = _claim_verdict(study, row, claim)
    data: dict[str, Any] = {"claimed_low": claim.low, "claimed_high": claim.high, "claim": verdict.word}
    if row.comparison is not None and verdict.word != "not tested":
        data["claim_p_holm"] = row.comparison.claim_p
    return data


def _detail(row: Row) -> str:
    """How much data a verdict rests on."""
    comparison = row.comparison
    assert comparison is not None
    d = comparison.difference
    return (
        f"{row.arm.label}: {plural(d.seeds, 'seed')}, {images_text(d)} each. Variance of the difference:"
        f" {100 * d.shares.seed:.0f} % between seeds, {100 * d.shares.image:.0f} % between images,"
        f" {100 * d.shares.residual:.0f} % residual."
        f" A true difference of {100 * d.detectable:.1f} points would be found with a probability of 80 %."
        f" P(arm > baseline) = {comparison.probability:.2f}."
    )


def _paper_noise(row: Row, baseline: float | None) -> str:
    """How far our difference and the paper's are apart, in standard errors of both."""
    comparison, reported = row.comparison, row.arm.reported
    assert comparison is not None
    assert comparison.claim is not None
    assert reported is not None
    assert baseline is not None
    images = sum(count for _, count in paper.RECALL)
    error = sqrt(sum(share * (1 - share) for share in (reported, baseline)) / images)
    difference = comparison.difference
    distance = abs(difference.estimate - comparison.claim.low) / hypot(error, difference.standard_error)
    return (
        f"{row.arm.label}: the paper's difference of two runs on {images:,} images has a standard error of about"
        f" {100 * error:.1f} points from the images alone. It is {distance:.1f} standard errors of the two differences"
        " away from ours."
    )


def _arm_data(row: Row) -> dict[str, Any]:
    arm, curve, comparison = row.arm, row.curve, row.comparison
    data: dict[str, Any] = {"arm": arm.label, "words": " ".join(arm.overrides)}
    data |= {"runs": " ".join(arm.runs[seed].record.identity[:12] for seed in sorted(arm.runs))}
    data |= {"seeds": len(arm.runs), "failed": len(arm.failed), "reported": arm.reported}
    recomputed = over_seeds(arm, "val_acc_recomputed")
    for name, summary in (("accuracy", row.accuracy), ("train", row.train), ("recomputed", recomputed)):
        if summary is not None:
            data |= {name: summary.mean, f"{name}_sd": summary.sd, f"{name}_low": summary.low}
            data |= {f"{name}_high": summary.high}
    data |= {"epochs_to_95": curve.epochs_to_95, "oscillation": curve.oscillation, "gap": curve.gap, "ece": curve.ece}
    if comparison is not None:
        d = comparison.difference
        data |= {"pairs": d.seeds, "difference": d.estimate, "low": d.low, "high": d.high, "p": d.p}
        data |= {"p_holm": comparison.p_adjusted, "verdict": comparison.verdict.word}
        data |= {"df": d.df, "share_seed": d.shares.seed, "share_image": d.shares.image}
        data |= {"detectable": d.detectable, "probability_better": comparison.probability}
        if comparison.bootstrap is not None:
            data |= dict(zip(("bootstrap_low", "bootstrap_high"), comparison.bootstrap, strict=True))
        data["mcnemar_p"] = " ".join(f"{test.p:.3g}" for test in comparison.mcnemar)
    return data
