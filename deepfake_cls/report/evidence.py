"""From the runs of an experiment to its evidence: means over seeds, paired differences, verdicts, curves in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.records import read_predictions
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.stats.compare import (
    Difference,
    McNemar,
    difference,
    difference_folds,
    holm,
    mcnemar,
    probability_better,
)
from deepfake_cls.stats.intervals import Summary, bootstrap, summarise
from deepfake_cls.stats.verdict import Verdict, judge

Right = tuple[NDArray[np.str_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline, over the seeds that both have.

    Attributes:
        seeds: Which.
        difference: Arm less baseline; its interval decides.
        p_adjusted: After Holm's correction over the experiment's arms.
        verdict: In words.
        bootstrap: Diagnostic: percentile interval over seeds and images; None where each seed has its own images.
        probability: Diagnostic: P(arm > baseline) over seeds.
        mcnemar: Diagnostic: exact McNemar test for each seed's pair of models.
    """

    seeds: tuple[int, ...]
    difference: Difference
    p_adjusted: float
    verdict: Verdict
    bootstrap: tuple[float, float] | None
    probability: float
    mcnemar: tuple[McNemar, ...]


@dataclass(frozen=True)
class Curve:
    """The paper's remarks about training as numbers: means over seeds.

    Attributes:
        epochs_to_95: "Slow": epochs until the curve first reaches 95 % of its last accuracy.
        oscillation: "Oscillates": standard deviation of the change from epoch to epoch, in the second half.
        gap: "Overfitting": accuracy on clean training images less that on validation images.
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
        accuracy: Over seeds; None without a run.
        train: Accuracy on clean training images.
        curve: Remarks in numbers.
        comparison: With the baseline; None for the baseline, and without a common seed.
    """

    arm: Arm
    accuracy: Summary | None
    train: Summary | None
    curve: Curve
    comparison: Comparison | None


@dataclass(frozen=True)
class Evidence:
    """All rows of an experiment.

    Attributes:
        experiment: What was declared.
        rows: One for each arm.
        problems: What could not be used, and why.
    """

    experiment: Experiment
    rows: list[Row]
    problems: list[str] = field(default_factory=list)


def gather(experiment: Experiment) -> Evidence:
    """Compare every arm with the baseline.

    Args:
        experiment: With its runs.
    """
    problems: list[str] = []
    baseline = experiment.arms[experiment.baseline]
    pairs: dict[int, tuple[tuple[int, ...], list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], bool]] = {}
    for place, arm in enumerate(experiment.arms):
        seeds = tuple(sorted(arm.runs.keys() & baseline.runs.keys()))
        if arm is baseline or not seeds:
            continue
        try:
            pairs[place] = (seeds, *paired(arm, baseline, seeds))
        except InputError as error:
            problems.append(f"{arm.label}: {error}")
    found = {place: measure(rights, own) for place, (_, rights, own) in pairs.items()}
    # The declared family: an arm that has no runs yet counts too, or correction would grow with the runs.
    family = [place for place, arm in enumerate(experiment.arms) if arm is not baseline]
    adjusted = dict(zip(family, holm([found[place].p if place in found else 1.0 for place in family]), strict=True))
    rows = []
    for place, arm in enumerate(experiment.arms):
        comparison = None
        if place in found:
            seeds, rights, own = pairs[place]
            comparison = Comparison(
                seeds=seeds,
                difference=found[place],
                p_adjusted=adjusted[place],
                verdict=judge(found[place], adjusted[place]),
                bootstrap=None if own else bootstrap(np.stack([a.astype(np.int8) - b for a, b in rights])),
                probability=probability_better(
                    [float(a.mean()) for a, _ in rights], [float(b.mean()) for _, b in rights]
                ),
                mcnemar=tuple(mcnemar(a, b) for a, b in rights),
            )
        rows.append(Row(arm, over_seeds(arm, "val_acc"), over_seeds(arm, "train_acc"), curve(arm), comparison))
    return Evidence(experiment, rows, problems)


def measure(rights: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], own_images: bool) -> Difference:
    """The difference that decides: seeds and images crossed, or folds where each seed has its own images."""
    if own_images:
        return difference_folds(rights)
    return difference(np.stack([a for a, _ in rights]), np.stack([b for _, b in rights]))


def paired(
    arm: Arm, baseline: Arm, seeds: tuple[int, ...], name: str = "probs", other: str = "probs"
) -> tuple[list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], bool]:
    """Which predictions are right, of both arms, image by image.

    Args:
        arm: The arm.
        baseline: What it is compared with.
        seeds: Seeds that both have.
        name: Which probabilities of the arm: ``probs``, or ``probs_flip`` for flip TTA.
        other: Which of the baseline.

    Returns:
        A pair of bool (N,) for each seed, and whether each seed has images of its own.

    Raises:
        InputError: Predictions are missing, or the two were made on different images.
    """
    rights, sets = [], []
    for seed in seeds:
        ids, a = right(arm.runs[seed], name)
        ids_b, b = right(baseline.runs[seed], other)
        if not np.array_equal(ids, ids_b):
            raise InputError(f"seed {seed} was scored on other images than the baseline's; they cannot be paired.")
        rights.append((a, b))
        sets.append(ids)
    own = any(not np.array_equal(ids, sets[0]) for ids in sets)
    if own and len({image for ids in sets for image in ids.tolist()}) < sum(map(len, sets)):
        raise InputError("some seeds share validation images and others do not: runs of several data sets are mixed.")
    return rights, own


def right(entry: Finished, name: str = "probs") -> Right:
    """Ids, and which predictions are right: bool (N,)."""
    ids, labels, probs = read_predictions(entry.path / "predictions.npz", name)
    return ids, probs.argmax(axis=1) == labels


def over_seeds(arm: Arm, metric: str) -> Summary | None:
    """Mean, deviation and interval of a metric; None without a run that has it."""
    values = [entry.record.metrics[metric] for entry in arm.runs.values() if metric in entry.record.metrics]
    return summarise(values) if values else None


def curve(arm: Arm) -> Curve:
    """The remarks in numbers."""

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    records = [entry.record for entry in arm.runs.values()]
    curves = [[row["val_acc"] for row in record.history] for record in records if record.history]
    late = [np.diff(accuracies)[(len(accuracies) - 1) // 2 :] for accuracies in curves]
    return Curve(
        epochs_to_95=mean([1.0 + next(i for i, acc in enumerate(c) if acc >= 0.95 * c[-1]) for c in curves]),
        oscillation=mean([float(changes.std(ddof=1)) for changes in late if len(changes) > 1]),
        gap=mean([r.metrics["train_acc"] - r.metrics["val_acc"] for r in records if "train_acc" in r.metrics]),
        ece=mean([r.metrics["val_ece"] for r in records if "val_ece" in r.metrics]),
    )
