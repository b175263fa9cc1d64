"""The tables of a declared experiment: its arms with their evidence, and the paper's remarks as numbers."""

from __future__ import annotations

from typing import Any

from deepfake_cls.report.evidence import Row
from deepfake_cls.report.render import DASH, Table, interval_text, mean_text, percent, plural
from deepfake_cls.report.study import Study
from deepfake_cls.stats.verdict import points


def sweep_tables(study: Study, number: int) -> list[Table]:
    """The tables of all trained experiments that are declared with a number.

    Args:
        study: Experiments with their runs.
        number: Of the tables.
    """
    names = [name for name, one in study.experiments.items() if one.table == number and one.entry == "train"]
    return [
        make(study, name)
        for name in names
        if study.includes(study.experiments[name])
        for make in (arms_table, remarks_table)
    ]


def arms_table(study: Study, name: str) -> Table:
    """An experiment's arms: accuracy over seeds, difference from the baseline, verdict.

    Args:
        study: Experiments with their runs.
        name: Of the experiment.
    """
    found = study.evidence[name]
    experiment = found.experiment
    columns = ["arm", "accuracy %", "report %", "difference, points (95 %)", "p (Holm)", "verdict"]
    rows = [_arm_cells(row, place == experiment.baseline) for place, row in enumerate(found.rows)]
    data = [_arm_data(row, experiment.name) for row in found.rows]
    notes = [
        f"Runs at {study.scale_text}; accuracy after the last epoch: mean ± standard deviation over n seeds."
        " The interval of a difference accounts for seeds and for images; p is corrected over the arms (Holm)."
    ]
    notes += [f"{row.arm.label}: {_claim(row, study)}" for row in found.rows if row.comparison is not None]
    notes += [
        f"Failed: {row.arm.label}, seed {seed}: {' '.join(error.split())}"
        for row in found.rows
        for seed, error in row.arm.failed.items()
    ]
    notes += [f"Left out: {problem}" for problem in found.problems]
    return Table(experiment.table, experiment.name, experiment.title, columns, rows, notes, data)


def remarks_table(study: Study, name: str) -> Table:
    """What the paper says in words about each arm, as numbers.

    Args:
        study: Experiments with their runs.
        name: Of the experiment.
    """
    found = study.evidence[name]
    rows = []
    for row in found.rows:
        curve = row.curve
        cells = [row.arm.label, DASH if curve.epochs_to_95 is None else f"{curve.epochs_to_95:.1f}"]
        cells += [percent(curve.oscillation), mean_text(row.train), percent(row.arm.reported_train)]
        cells += [DASH if curve.gap is None else points(curve.gap), DASH if curve.ece is None else f"{curve.ece:.3f}"]
        rows.append([*cells, row.arm.remark or DASH])
    columns = ["arm", "slow: epochs to 95 %", "oscillates: points", "train %", "report, train %"]
    columns += ["overfits: train − validation, points", "overconfident: ECE", "report's remark"]
    notes = [
        "Epochs until validation accuracy first reaches 95 % of its last value; standard deviation of its change from"
        " epoch to epoch in the second half; accuracy on clean training images; expected calibration error."
        " Means over seeds."
    ]
    experiment = found.experiment
    return Table(
        experiment.table, f"{experiment.name}_remarks", f"{experiment.title}, in numbers", columns, rows, notes
    )


def _arm_cells(row: Row, baseline: bool) -> list[str]:
    comparison = row.comparison
    cells = [row.arm.label, mean_text(row.accuracy), percent(row.arm.reported)]
    if comparison is not None:
        cells += [interval_text(comparison.difference), f"{comparison.p_adjusted:.2g}", comparison.verdict.word]
    else:
        cells += ["baseline" if baseline else DASH, DASH, DASH]
    return cells


def _claim(row: Row, study: Study) -> str:
    """The verdict, and what it rests on."""
    comparison = row.comparison
    assert comparison is not None
    found = comparison.difference
    return (
        f"{study.verdict_prefix}{comparison.verdict.sentence} ({plural(found.seeds, 'seed')},"
        f" {found.images:,} images each; {100 * found.shares.seed:.0f} % of the squared standard error is between"
        f" seeds, {100 * found.shares.image:.0f} % between images; a true difference of {100 * found.detectable:.1f}"
        f" points would be found in 4 of 5 such experiments; P(arm > baseline) = {comparison.probability:.2f})"
    )


def _arm_data(row: Row, experiment: str) -> dict[str, Any]:
    data: dict[str, Any] = {"experiment": experiment, "arm": row.arm.label, "words": " ".join(row.arm.words)}
    data |= {"runs": " ".join(row.arm.runs[seed].record.identity[:12] for seed in sorted(row.arm.runs))}
    data |= {"seeds": len(row.arm.runs), "failed": len(row.arm.failed), "reported": row.arm.reported}
    for name, summary in (("accuracy", row.accuracy), ("train", row.train)):
        if summary is not None:
            data |= {name: summary.mean, f"{name}_sd": summary.sd, f"{name}_low": summary.low}
            data |= {f"{name}_high": summary.high}
    curve = row.curve
    data |= {"epochs_to_95": curve.epochs_to_95, "oscillation": curve.oscillation, "gap": curve.gap, "ece": curve.ece}
    if row.comparison is not None:
        found = row.comparison.difference
        data |= {"pairs": found.seeds, "difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
        data |= {"p_holm": row.comparison.p_adjusted, "verdict": row.comparison.verdict.word}
        data |= {"df": found.df, "share_seed": found.shares.seed, "share_image": found.shares.image}
        data |= {"detectable": found.detectable, "probability_better": row.comparison.probability}
        if row.comparison.bootstrap is not None:
            data |= dict(zip(("bootstrap_low", "bootstrap_high"), row.comparison.bootstrap, strict=True))
        data["mcnemar_p"] = " ".join(f"{test.p:.3g}" for test in row.comparison.mcnemar)
    return data
