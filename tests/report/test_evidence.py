from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.report.collect import Finished, collect
from deepfake_cls.report.evidence import Row, curve, gather, over_seeds
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.stats.compare import difference, difference_folds, mcnemar
from deepfake_cls.stats.intervals import bootstrap
from tests.report.lab import FOLDS, TINY, fold, some_right, study_of, write

LOW, HIGH = 0.6, 0.9


def experiment(root: Path, name: str = "table5_dropout", words: tuple[str, ...] = TINY) -> Experiment:
    return study_of(root, words).experiments[name]


def rows(root: Path, name: str = "table5_dropout") -> tuple[list[Row], list[str]]:
    found = gather(experiment(root, name))
    return found.rows, found.problems


def test_the_difference_is_that_of_the_answers_over_common_seeds(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, [*TINY, "dropout=0.0"], seed, some_right(LOW, seed))
    for seed in (3, 1, 0):
        write(tmp_path, TINY, seed, some_right(HIGH, seed))
    (first, baseline, last), problems = rows(tmp_path)
    assert not problems
    found = first.comparison
    assert found is not None
    a, b = (np.stack([some_right(share, seed) for seed in (0, 1)]) for share in (LOW, HIGH))
    assert found.seeds == (0, 1)
    assert found.difference == difference(a, b)
    assert found.difference.estimate < -0.1
    # Of two declared comparisons one has no runs, and counts all the same.
    assert found.p_adjusted == pytest.approx(2 * found.difference.p)
    assert found.bootstrap == bootstrap(a.astype(np.int8) - b)
    assert found.probability == 0
    assert found.mcnemar == tuple(mcnemar(*pair) for pair in zip(a, b, strict=True))
    assert first.accuracy is not None
    assert first.accuracy.seeds == 3  # of its own, all count
    assert first.accuracy.mean == pytest.approx(np.mean([some_right(LOW, seed).mean() for seed in (0, 1, 2)]))
    assert baseline.comparison is None
    assert (last.accuracy, last.train, last.comparison) == (None, None, None)


def test_no_common_seed_no_comparison(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.0"], 0)
    write(tmp_path, TINY, 1)
    found, problems = rows(tmp_path)
    assert not problems
    assert [row.comparison for row in found] == [None] * 3


@pytest.mark.parametrize("name", ["table4_lr", "table6_alpha", "table10_components"])
def test_holm_counts_the_declared_family(tmp_path: Path, name: str) -> None:
    words = {"table4_lr": "lr=0.013", "table6_alpha": "arm=rgba_constant", "table10_components": "arm=no_skips"}
    baseline = ["arm=rgb"] if name == "table6_alpha" else []
    for seed in (0, 1, 2):
        write(tmp_path, [*TINY, words[name]], seed, some_right(0.75, seed))
        write(tmp_path, [*TINY, *baseline], seed, some_right(HIGH, seed))
    found = gather(experiment(tmp_path, name))
    compared = [row.comparison for row in found.rows if row.comparison is not None]
    assert len(compared) == 1
    family = len(found.rows) - 1
    assert 0 < compared[0].difference.p < 0.1
    assert compared[0].p_adjusted == pytest.approx(min(1, family * compared[0].difference.p))


def test_other_images_are_told_and_not_paired(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.0"], 0, ids=[f"other {place}" for place in range(200)])
    write(tmp_path, [*TINY, "dropout=0.5"], 0)
    write(tmp_path, TINY, 0)
    (first, _, last), problems = rows(tmp_path)
    assert first.comparison is None
    assert first.accuracy is not None
    assert last.comparison is not None
    assert last.comparison.verdict.word == "inconclusive"  # one seed
    assert len(problems) == 1
    assert problems[0].startswith("dropout 0: seed 0 was scored on other images")


def test_missing_answers_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, [*TINY, "dropout=0.0"], 0)
    write(tmp_path, TINY, 0)
    (path / "predictions.npz").unlink()
    (first, *_), problems = rows(tmp_path)
    assert first.comparison is None
    assert "holds no probs" in problems[0]


def test_folds_are_paired_each_by_itself(tmp_path: Path) -> None:
    sizes = {0: 90, 1: 100, 2: 100}
    for seed, size in sizes.items():
        ids = [f"{seed} {place}" for place in range(size)]
        for words, share in (([], HIGH), (["dropout=0.0"], LOW)):
            write(tmp_path, [*fold(seed), *words], seed, some_right(share, seed, size), ids=ids)
    (first, *_) = gather(experiment(tmp_path, words=FOLDS)).rows
    found = first.comparison
    assert found is not None
    pairs = [(some_right(LOW, seed, size), some_right(HIGH, seed, size)) for seed, size in sizes.items()]
    assert found.difference == difference_folds(pairs)
    assert found.bootstrap is None
    assert len(found.mcnemar) == 3


def test_folds_that_share_images_are_not_taken_for_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        ids = [f"{place + 100 * seed}" for place in range(200)]
        for words in ([], ["dropout=0.0"]):
            write(tmp_path, [*TINY, *words], seed, ids=ids)
    (first, *_), problems = rows(tmp_path)
    assert first.comparison is None
    assert "some seeds share validation images" in problems[0]


def watched(root: Path, *histories: list[float]) -> Arm:
    for seed, history in enumerate(histories):
        write(root, TINY, seed, some_right(0.8, seed), history=history, train_acc=0.9)
    records = collect(root)
    return Arm("x", runs={entry.record.seed: entry for entry in records})


def test_remarks_in_numbers(tmp_path: Path) -> None:
    found = curve(watched(tmp_path, [0.2, 0.5, 0.77, 0.8], [0.5, 0.4, 0.7, 0.6, 0.9, 0.9]))
    # 95 % of the last: 0.76, reached in epoch 3, and 0.855, reached in epoch 5.
    assert found.epochs_to_95 == 4.0
    # Changes in the second half: +0.27, +0.03; and −0.1, +0.3, 0.
    first, second = 0.24 / sqrt(2), sqrt(((1 / 6) ** 2 + (7 / 30) ** 2 + (1 / 15) ** 2) / 2)
    assert found.oscillation == pytest.approx((first + second) / 2)
    assert found.gap == pytest.approx(0.9 - np.mean([some_right(0.8, seed).mean() for seed in (0, 1)]))
    # All probabilities of the taken class are 0.9.
    assert found.ece == pytest.approx(np.mean([abs(0.9 - some_right(0.8, seed).mean()) for seed in (0, 1)]))


def test_a_curve_that_falls_reaches_its_end_early(tmp_path: Path) -> None:
    assert curve(watched(tmp_path / "long", [0.2, 0.7, 0.9, 0.7])).epochs_to_95 == 2.0  # of the last, not of the best
    short = curve(watched(tmp_path / "short", [0.9, 0.5]))
    assert short.epochs_to_95 == 1.0
    assert short.oscillation is None  # one change has no spread


def test_no_runs_no_numbers() -> None:
    found = curve(Arm("x"))
    assert (found.epochs_to_95, found.oscillation, found.gap, found.ece) == (None,) * 4
    assert over_seeds(Arm("x"), "val_acc") is None


def test_each_run_is_read_a_few_times_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepfake_cls.report import evidence

    for seed in range(4):
        for words in ([], ["dropout=0.0"], ["dropout=0.5"]):
            write(tmp_path, [*TINY, *words], seed)
    found = experiment(tmp_path)
    read: list[Path] = []
    right = evidence.right

    def counted(entry: Finished, name: str = "probs") -> evidence.Right:
        read.append(entry.path)
        return right(entry, name)

    monkeypatch.setattr(evidence, "right", counted)
    gather(found)
    assert len(read) == 2 * 2 * 4  # arm and baseline, for each of two comparisons, seed by seed
