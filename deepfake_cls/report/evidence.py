"""Evidence of an experiment from its runs: means over seeds, paired differences, verdicts, training behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.records import read_groups, read_predictions
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.stats.compare import Difference, difference, difference_folds
from deepfake_cls.stats.diagnostics import McNemar, bootstrap, mcnemar, probability_better
from deepfake_cls.stats.groups import by_group
from deepfake_cls.stats.intervals import Summary, summarise
from deepfake_cls.stats.verdict import Claim, Verdict, holm, judge

Correct = NDArray[np.bool_]  # (N,), whether each prediction is correct


@dataclass(frozen=True)
class Pairs:
    """Predictions of two arms, paired by seed and image.

    Attributes:
        seeds: Seeds that both arms have.
        correct: For each seed, correct predictions of the arm and of the baseline.
        folds: Whether each seed has its own images.
        groups: For each seed the group of each image, int64 (N,); None if the data has no groups.
    """

    seeds: tuple[int, ...]
    correct: list[tuple[Correct, Correct]]
    folds: bool
    groups: list[NDArray[np.int64]] | None = None

    def difference(self) -> Difference:
        """Arm minus baseline, over seeds and images, or groups where there are."""
        if self.folds:
            return difference_folds(self.correct, groups=self.groups)
        a, b = (np.stack(side) for side in zip(*self.correct, strict=True))
        return difference(a, b, groups=None if self.groups is None else self.groups[0])

    def bootstrap(self) -> tuple[float, float] | None:
        """Percentile interval over seeds and images, or groups where there are; None for folds."""
        if self.folds:
            return None
        d = np.stack([a.astype(np.int8) - b for a, b in self.correct])
        return bootstrap(d if self.groups is None else by_group(d, self.groups[0]))


@dataclass(frozen=True)
class Comparison:
    """One arm compared with the baseline, over their common seeds.

    Attributes:
        seeds: The common seeds.
        difference: Arm minus baseline; its interval decides.
        p_adjusted: p value after Holm's correction over the experiment's arms.
        verdict: Conclusion.
        claim: The paper's difference; None if it has no number for the arm or the baseline.
        claim_p: p value of the paper's difference, after Holm's correction over the experiment's claims; 1 for one
            seed, and without a claim.
        bootstrap: Diagnostic: percentile interval over seeds and images; None for folds.
        probability: Diagnostic: P(arm > baseline) over seeds.
        mcnemar: Diagnostic: exact McNemar test for each seed's pair of models, as if images were independent.
    """

    seeds: tuple[int, ...]
    difference: Difference
    p_adjusted: float
    verdict: Verdict
    claim: Claim | None
    claim_p: float
    bootstrap: tuple[float, float] | None
    probability: float
    mcnemar: tuple[McNemar, ...]


@dataclass(frozen=True)
class Curve:
    """The paper's remarks on training as numbers, means over seeds.

    Attributes:
        epochs_to_95: "Slow": first epoch with 95 % of the final validation accuracy.
        oscillation: "Oscillates": standard deviation of the change from epoch to epoch, in the second half.
        gap: "Overfitting": accuracy on clean training images minus that on validation images.
        ece: "Overconfident": expected calibration error.
    """

    epochs_to_95: float | None
    oscillation: float | None
    gap: float | None
    ece: float | None


@dataclass(frozen=True)
class Row:
    """The evidence for one arm.

    Attributes:
        arm: The arm with its runs.
        accuracy: Validation accuracy over seeds; None without a run.
        train: Accuracy on clean training images.
        curve: Training behaviour.
        comparison: With the baseline; None for the baseline, and without a common seed.
    """

    arm: Arm
    accuracy: Summary | None
    train: Summary | None
    curve: Curve
    comparison: Comparison | None


@dataclass(frozen=True)
class Evidence:
    """The evidence of an experiment.

    Attributes:
        experiment: The declaration.
        rows: One for each arm.
        problems: Arms that could not be compared, and why.
    """

    experiment: Experiment
    rows: list[Row]
    problems: list[str] = field(default_factory=list)


def gather(experiment: Experiment) -> Evidence:
    """Compare every arm of an experiment with its baseline."""
    arms, baseline = experiment.arms, experiment.arms[experiment.baseline]
    others = [index for index in range(len(arms)) if index != experiment.baseline]
    problems: list[str] = []
    pairs: dict[int, Pairs] = {}
    for index in others:
        try:
            if seeds := sorted(arms[index].runs.keys() & baseline.runs.keys()):
                pairs[index] = pair_predictions(arms[index], baseline, seeds)
        except InputError as error:
            problems.append(f"{arms[index].label}: {error}")
    differences = {index: pair.difference() for index, pair in pairs.items()}
    # Holm's family is all declared arms: without those that have no runs, the correction would grow with the runs.
    p_values = holm([differences[index].p if index in differences else 1.0 for index in others])
    claims = {index: claim for index in others if (claim := experiment.claim(index)) is not None}
    p_claims = dict(zip(claims, holm([claim_p(differences.get(i), claim) for i, claim in claims.items()]), strict=True))
    comparisons = {
        index: _compare(pairs[index], differences[index], p_adjusted, claims.get(index), p_claims.get(index, 1.0))
        for index, p_adjusted in zip(others, p_values, strict=True)
        if index in pairs
    }
    rows = [
        Row(arm, over_seeds(arm, "val_acc"), over_seeds(arm, "train_acc"), curve(arm), comparisons.get(index))
        for index, arm in enumerate(arms)
    ]
    return Evidence(experiment, rows, problems)


def claim_p(difference: Difference | None, claim: Claim | None) -> float:
    """The p value of a claimed difference; 1 for an arm without runs or with one seed, and without a claim."""
    if difference is None or difference.seeds_ignored or claim is None:
        return 1.0
    return difference.p_of(claim.low, claim.high)


def _compare(
    pairs: Pairs, difference: Difference, p_adjusted: float, claim: Claim | None, claim_p: float
) -> Comparison:
    a, b = ([float(side.mean()) for side in sides] for sides in zip(*pairs.correct, strict=True))
    return Comparison(
        seeds=pairs.seeds,
        difference=difference,
        p_adjusted=p_adjusted,
        verdict=judge(difference, p_adjusted),
        claim=claim,
        claim_p=claim_p,
        bootstrap=pairs.bootstrap(),
        probability=probability_better(a, b),
        mcnemar=tuple(mcnemar(a, b) for a, b in pairs.correct),
    )


def pair_predictions(
    arm: Arm, baseline: Arm, seeds: Sequence[int], name: str = "probs", baseline_name: str = "probs"
) -> Pairs:
    """Pair the predictions of two arms by seed and image.

    ``name`` and ``baseline_name`` are the probabilities that are compared: ``probs``, or ``probs_flip`` for flip TTA.

    Raises:
        InputError: If predictions are missing, or the two arms were scored on different images.
    """
    correct, ids, groups = [], [], []
    for seed in seeds:
        arm_ids, a = correct_predictions(arm.runs[seed], name)
        baseline_ids, b = correct_predictions(baseline.runs[seed], baseline_name)
        if not np.array_equal(arm_ids, baseline_ids):
            raise InputError(f"seed {seed} was scored on other images than the baseline, so they cannot be paired.")
        correct.append((a, b))
        ids.append(arm_ids)
        own = [read_groups(one.runs[seed].path / "predictions.npz") for one in (arm, baseline)]
        groups += [each for each in own if each is not None][:1]  # an older run of the two may have none
    folds = any(not np.array_equal(seed_ids, ids[0]) for seed_ids in ids)
    if folds and len({image for seed_ids in ids for image in seed_ids.tolist()}) < sum(map(len, ids)):
        raise InputError("some seeds share validation images and others do not: runs of several data sets are mixed.")
    if any((own == own[0]).all() for own in groups):
        raise InputError("all images are of one group, so no interval can be given; check data.group_pattern.")
    return Pairs(tuple(seeds), correct, folds, groups if len(groups) == len(seeds) else None)


def correct_predictions(run: Finished, name: str = "probs") -> tuple[NDArray[np.str_], Correct]:
    """Image ids of a run, and whether each prediction is correct."""
    ids, labels, probs = read_predictions(run.path / "predictions.npz", name)
    return ids, probs.argmax(axis=1) == labels


def over_seeds(arm: Arm, metric: str) -> Summary | None:
    """Mean, standard deviation and interval of a metric; None if no run has it."""
    values = [run.record.metrics[metric] for run in arm.runs.values() if metric in run.record.metrics]
    return summarise(values) if values else None


def curve(arm: Arm) -> Curve:
    """Describe an arm's training in numbers."""

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    records = [run.record for run in arm.runs.values()]
    curves = [[row["val_acc"] for row in record.history] for record in records if record.history]
    second_half = [np.diff(accuracies)[(len(accuracies) - 1) // 2 :] for accuracies in curves]
    return Curve(
        epochs_to_95=mean([1.0 + next(i for i, acc in enumerate(c) if acc >= 0.95 * c[-1]) for c in curves]),
        oscillation=mean([float(changes.std(ddof=1)) for changes in second_half if len(changes) > 1]),
        gap=mean([r.metrics["train_acc"] - r.metrics["val_acc"] for r in records if "train_acc" in r.metrics]),
        ece=mean([r.metrics["val_ece"] for r in records if "val_ece" in r.metrics]),
    )
