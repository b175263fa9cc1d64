from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfake_cls.report import evidence
from deepfake_cls.report.collect import Finished, collect
from deepfake_cls.report.evidence import Correct, Evidence, curve, gather, over_seeds
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.stats.compare import difference, difference_folds
from deepfake_cls.stats.diagnostics import bootstrap, mcnemar
from tests.report.fake_runs import FOLDS, TINY, fold, random_correct, study_of, write

LOW, HIGH = 0.6, 0.9


def experiment(root: Path, name: str = "table5_dropout", overrides: tuple[str, ...] = TINY) -> Experiment:
    return study_of(root, overrides).experiments[name]


def evidence_of(root: Path) -> Evidence:
    return gather(experiment(root))


def test_the_comparison_uses_the_seeds_that_both_arms_have(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, [*TINY, "dropout=0.0"], seed, random_correct(LOW, seed))
    for seed in (3, 1, 0):
        write(tmp_path, TINY, seed, random_correct(HIGH, seed))
    result = evidence_of(tmp_path)
    first, baseline, last = result.rows
    assert not result.problems
    comparison = first.comparison
    assert comparison is not None
    a, b = (np.stack([random_correct(share, seed) for seed in (0, 1)]) for share in (LOW, HIGH))
    assert comparison.seeds == (0, 1)
    assert comparison.difference == difference(a, b)
    assert comparison.difference.estimate < -0.1
    # The family has two declared comparisons; the one without runs counts too.
    assert comparison.p_adjusted == pytest.approx(2 * comparison.difference.p)
    assert comparison.bootstrap == bootstrap(a.astype(np.int8) - b)
    assert comparison.probability == 0
    assert comparison.mcnemar == tuple(mcnemar(*pair) for pair in zip(a, b, strict=True))
    assert first.accuracy is not None
    assert first.accuracy.seeds == 3  # the arm's own mean uses all its seeds
    assert first.accuracy.mean == pytest.approx(np.mean([random_correct(LOW, seed).mean() for seed in (0, 1, 2)]))
    assert baseline.comparison is None
    assert (last.accuracy, last.train, last.comparison) == (None, None, None)


def test_without_a_common_seed_there_is_no_comparison(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.0"], 0)
    write(tmp_path, TINY, 1)
    result = evidence_of(tmp_path)
    assert not result.problems
    assert [row.comparison for row in result.rows] == [None] * 3


@pytest.mark.parametrize("name", ["table4_lr", "table6_alpha", "table10_components"])
def test_holm_counts_the_declared_family(tmp_path: Path, name: str) -> None:
    override = {"table4_lr": "lr=0.013", "table6_alpha": "arm=rgba_constant", "table10_components": "arm=no_skips"}
    baseline = ["arm=rgb"] if name == "table6_alpha" else []
    for seed in (0, 1, 2):
        write(tmp_path, [*TINY, override[name]], seed, random_correct(0.75, seed))
        write(tmp_path, [*TINY, *baseline], seed, random_correct(HIGH, seed))
    result = gather(experiment(tmp_path, name))
    (comparison,) = [row.comparison for row in result.rows if row.comparison is not None]
    family = len(result.rows) - 1
    assert 0 < comparison.difference.p < 0.1
    assert comparison.p_adjusted == pytest.approx(min(1, family * comparison.difference.p))


def test_runs_on_different_images_are_not_paired(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.0"], 0, ids=[f"other {index}" for index in range(200)])
    write(tmp_path, [*TINY, "dropout=0.5"], 0)
    write(tmp_path, TINY, 0)
    result = evidence_of(tmp_path)
    first, _, last = result.rows
    assert first.comparison is None
    assert first.accuracy is not None
    assert last.comparison is not None
    assert last.comparison.verdict.word == "inconclusive"  # one seed
    (problem,) = result.problems
    assert problem.startswith("dropout 0: seed 0 was scored on other images")


def test_missing_predictions_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, [*TINY, "dropout=0.0"], 0)
    write(tmp_path, TINY, 0)
    (path / "predictions.npz").unlink()
    result = evidence_of(tmp_path)
    assert result.rows[0].comparison is None
    assert result.problems[0].startswith("dropout 0: ")
    assert "predictions.npz" in result.problems[0]


def test_folds_are_paired_by_seed(tmp_path: Path) -> None:
    sizes = {0: 90, 1: 100, 2: 100}
    for seed, size in sizes.items():
        ids = [f"{seed} {index}" for index in range(size)]
        for overrides, share in (([], HIGH), (["dropout=0.0"], LOW)):
            write(tmp_path, [*fold(seed), *overrides], seed, random_correct(share, seed, size), ids=ids)
    comparison = gather(experiment(tmp_path, overrides=FOLDS)).rows[0].comparison
    assert comparison is not None
    pairs = [(random_correct(LOW, seed, size), random_correct(HIGH, seed, size)) for seed, size in sizes.items()]
    assert comparison.difference == difference_folds(pairs)
    assert comparison.bootstrap is None
    assert len(comparison.mcnemar) == 3


def test_partly_shared_images_are_not_treated_as_folds(tmp_path: Path) -> None:
    for seed in (0, 1):
        ids = [f"{index + 100 * seed}" for index in range(200)]
        for overrides in ([], ["dropout=0.0"]):
            write(tmp_path, [*TINY, *overrides], seed, ids=ids)
    result = evidence_of(tmp_path)
    assert result.rows[0].comparison is None
    assert "some seeds share validation images" in result.problems[0]


def arm_with_histories(root: Path, *histories: list[float]) -> Arm:
    for seed, history in enumerate(histories):
        write(root, TINY, seed, random_correct(0.8, seed), history=history, train_acc=0.9)
    return Arm("x", runs={run.record.seed: run for run in collect(root)})


def test_training_behaviour_in_numbers(tmp_path: Path) -> None:
    result = curve(arm_with_histories(tmp_path, [0.2, 0.5, 0.77, 0.8], [0.5, 0.4, 0.7, 0.6, 0.9, 0.9]))
    # 95 % of the last value: 0.76, reached in epoch 3, and 0.855, reached in epoch 5.
    assert result.epochs_to_95 == 4.0
    # Changes in the second half: +0.27, +0.03; and −0.1, +0.3, 0.
    first, second = 0.24 / sqrt(2), sqrt(((1 / 6) ** 2 + (7 / 30) ** 2 + (1 / 15) ** 2) / 2)
    assert result.oscillation == pytest.approx((first + second) / 2)
    accuracies = [random_correct(0.8, seed).mean() for seed in (0, 1)]
    assert result.gap == pytest.approx(0.9 - np.mean(accuracies))
    # Every predicted class has the probability 0.9.
    assert result.ece == pytest.approx(np.mean([abs(0.9 - accuracy) for accuracy in accuracies]))


def test_epochs_to_95_refer_to_the_last_epoch(tmp_path: Path) -> None:
    assert curve(arm_with_histories(tmp_path / "long", [0.2, 0.7, 0.9, 0.7])).epochs_to_95 == 2.0
    short = curve(arm_with_histories(tmp_path / "short", [0.9, 0.5]))
    assert short.epochs_to_95 == 1.0
    assert short.oscillation is None  # one change has no standard deviation


def test_without_runs_all_numbers_are_none() -> None:
    result = curve(Arm("x"))
    assert (result.epochs_to_95, result.oscillation, result.gap, result.ece) == (None,) * 4
    assert over_seeds(Arm("x"), "val_acc") is None


def test_predictions_are_read_once_per_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        for overrides in ([], ["dropout=0.0"], ["dropout=0.5"]):
            write(tmp_path, [*TINY, *overrides], seed)
    read: list[Path] = []
    original = evidence.correct_predictions

    def counted(run: Finished, name: str = "probs") -> tuple[NDArray[np.str_], Correct]:
        read.append(run.path)
        return original(run, name)

    declared = experiment(tmp_path)
    monkeypatch.setattr(evidence, "correct_predictions", counted)
    gather(declared)
    assert len(read) == 2 * 2 * 2  # arm and baseline, for each of two comparisons and two seeds
