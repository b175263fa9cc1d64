"""The cut of data with groups and exact duplicates: nothing of a group or with equal pixels is on both sides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data import inspection, sources
from deepfake_cls.data.inspection import Inspection
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.data.units import Units, first_share, folds, hold_out, units_of
from deepfake_cls.errors import InputError
from tests.data.prompts import prompts, write


def make(labels: list[int], groups: list[int] | None, digests: list[int] | None, ids: list[str] | None = None) -> Split:
    return Split(
        "train",
        tuple(ids or (f"{row}.png" for row in range(len(labels)))),
        np.array(labels, np.int64),
        None,
        groups=None if groups is None else tuple(map(str, groups)),
        # 0 stands for a file that cannot be read.
        inspection=None
        if digests is None
        else Inspection({"digest": np.array([str(d) if d else "" for d in digests])}),
    )


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Up to 60 images of up to 4 classes, in groups and with duplicates."""
    count = draw(st.integers(2, 60))

    def several(most: int) -> st.SearchStrategy[list[int]]:
        return st.lists(st.integers(0, most), min_size=count, max_size=count)

    return make(
        draw(several(draw(st.integers(0, 3)))),
        draw(st.none() | several(draw(st.integers(1, 30)))),
        draw(st.none() | several(draw(st.integers(1, 90)))),
    )


def sides(split: Split, of_row: NDArray[np.int64], side: NDArray[np.int64] | NDArray[np.bool_]) -> None:
    """Every group and every digest is on one side."""
    found = side[of_row]
    for names in (split.groups, None if split.inspection is None else split.inspection["digest"].tolist()):
        by_name: dict[str, set[int]] = {}
        for name, one in zip(names or (), found.tolist(), strict=False):
            if name:
                by_name.setdefault(name, set()).add(int(one))
        assert all(len(each) == 1 for each in by_name.values())


@settings(max_examples=150, deadline=None)
@given(splits(), st.integers(0, 5), st.floats(0.05, 0.9))
def test_no_unit_is_ever_on_both_sides(split: Split, seed: int, share: float) -> None:
    units = units_of(split, seed)
    assert units.counts.sum() == len(split)
    sides(split, units.of_row, hold_out(units, share))
    sides(split, units.of_row, folds(units, 3))
    sides(split, units.of_row, first_share(units, share))


@settings(max_examples=100, deadline=None)
@given(splits(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_cut_does_not_depend_on_the_order_of_the_images(split: Split, seed: int, random: object) -> None:
    order = np.arange(len(split))
    random.shuffle(order)  # type: ignore[attr-defined]
    other = dataclasses.replace(
        split,
        ids=tuple(split.ids[row] for row in order),
        labels=split.labels[order],
        groups=None if split.groups is None else tuple(split.groups[row] for row in order),
        inspection=None if split.inspection is None else split.inspection.subset(order),
    )
    one, two = units_of(split, seed), units_of(other, seed)
    assert np.array_equal(one.of_row[order], two.of_row)
    assert np.array_equal(hold_out(one, 0.3)[one.of_row][order], hold_out(two, 0.3)[two.of_row])
    assert np.array_equal(folds(one, 3), folds(two, 3))


@settings(max_examples=100, deadline=None)
@given(splits(), st.floats(0.05, 0.9))
def test_the_shares_are_as_close_as_the_units_allow(split: Split, share: float) -> None:
    units = units_of(split, 0)
    chosen, sizes = hold_out(units, share), units.sizes
    target = np.clip(np.round(share * sizes), 1, sizes - 1)

    def cost(chosen: NDArray[np.bool_]) -> float:
        held = units.counts[chosen].sum(axis=0)
        return float((((held - target) / sizes) ** 2).sum() + 99 * ((held == 0) | (held == sizes)).sum())

    for unit in range(len(units.counts)):
        flipped = chosen.copy()
        flipped[unit] = not flipped[unit]
        assert cost(flipped) >= cost(chosen) - 1e-9


def test_units_are_the_connected_components() -> None:
    # Rows 0 and 1 are of one group, 1 and 2 are duplicates, 2 and 3 are of one group: one unit. Rows 4 and 5 cannot be
    # read, which does not make them duplicates.
    units = units_of(make([0] * 6, [0, 0, 1, 1, 2, 3], [1, 2, 2, 3, 0, 0]), 0)
    assert len({*units.of_row[:4].tolist()}) == 1
    assert len({*units.of_row.tolist()}) == 3


@pytest.mark.parametrize("many_classes", [False, True])
def test_folds_are_as_even_as_those_of_scikit_learn(many_classes: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        groups = rng.geometric(0.02, 800) % 120
        labels = rng.integers(0, 4, 800) if many_classes else groups % 4
        ours = folds(units := units_of(make(labels.tolist(), groups.tolist(), None), 0), 5)[units.of_row]
        theirs = np.zeros(800, np.int64)
        oracle = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
        for fold, (_, held_out) in enumerate(oracle):
            theirs[held_out] = fold

        def spread(fold: NDArray[np.int64], labels: NDArray[np.int64] = labels) -> float:
            counts = np.array([np.bincount(labels[fold == each], minlength=4) for each in range(5)])
            return float((counts / np.bincount(labels, minlength=4)).std(axis=0).mean())

        assert spread(ours) <= 1.1 * spread(theirs) + 0.002


def test_smaller_shares_are_within_larger_ones_and_units_stay_whole() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 300)
    units = units_of(make((groups % 3).tolist(), groups.tolist(), None), 0)
    shares = {share: first_share(units, share) for share in (0.01, 0.1, 0.25, 0.5, 0.9, 1.0)}
    for small, large in zip(shares.values(), list(shares.values())[1:], strict=False):
        assert not (small & ~large).any()
    assert shares[1.0].all()
    for share, chosen in shares.items():
        kept = units.counts[chosen].sum(axis=0)
        assert (kept >= 1).all()
        assert (abs(kept - share * units.sizes) <= units.counts.max()).all()
    # Class 1 is in one unit only, where it is not the most frequent class.
    for seed in range(5):
        units = units_of(make([0, 0, 0, 1] + [0] * 40, [0, 0, 0, 0, *range(1, 41)], None), seed)
        assert units.counts[first_share(units, 0.05)][:, 1].any()


# Through the data set


def opened(root: Path, **options: object) -> Manifest:
    options = {"name": "test_prompts", "cache": "cache", "val_fraction": 0.2} | options
    return read_manifest(ImageFilesConfig(root=str(root), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"fold": 2, "folds": 5}])
def test_groups_and_duplicates_are_kept_together(tmp_path: Path, options: dict[str, object]) -> None:
    prompts(tmp_path / "data")
    # The pixels of prompts 0 and 1 are equal: images of four groups with 12 images are one unit.
    for number in range(3):
        write(tmp_path / "data", "gan", 1, number, seed=number)
    manifest = opened(tmp_path / "data", **options)
    train, validation = manifest.split("train"), manifest.split("validation")
    assert train.groups is not None
    assert validation.groups is not None
    assert not {*train.groups} & {*validation.groups}
    assert ("0" in validation.groups) == ("1" in validation.groups)
    assert len(train) + len(validation) == 120
    assert np.bincount(validation.labels).tolist() == [12, 12]
    assert (
        "Kept together: the images of each of 20 groups and 6 images in 3 sets of exact duplicates." in validation.note
    )
    assert train.inspection is not None
    assert len(train.inspection) == len(train)
    assert validation.inspection is not None
    read = inspection.inspect(
        sources.open_source(ImageFilesConfig(name="test_prompts", root=str(tmp_path))).reader(validation, None),
        tmp_path / "other",
    )
    assert validation.inspection["digest"].tolist() == read["digest"].tolist()


def test_images_are_opened_for_a_cut_only_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts(tmp_path / "data", 4)
    opened(tmp_path / "data")
    assert len(list(Path("cache").glob("inspection-*.npz"))) == 1
    monkeypatch.setattr(inspection, "_inspect", None)  # fails if it is called
    assert opened(tmp_path / "data").split("validation").inspection is not None
    uncut = read_manifest(ImageFilesConfig(name="test_prompts", root=str(tmp_path / "data"), cache="other"), cut=False)
    assert {name: len(split) for name, split in uncut.splits.items()} == {"train": 24}
    (tmp_path / "data" / "train").mkdir()
    for label in ("gan", "real"):
        (tmp_path / "data" / label).rename(tmp_path / "data" / "train" / label)
    (tmp_path / "data" / "validation" / "gan").mkdir(parents=True)
    write(tmp_path / "data" / "validation", "gan", 0, 0, seed=0)
    assert opened(tmp_path / "data", name="folder").split("validation").inspection is None


def test_a_class_within_one_group_is_refused_with_advice(tmp_path: Path) -> None:
    prompts(tmp_path / "data", 4)
    for number in range(3):
        write(tmp_path / "data", "new", 9, number, seed=number + 5000)
    with pytest.raises(InputError) as caught:
        opened(tmp_path / "data")
    assert str(caught.value) == (
        "There is no split validation, and none can be cut from train: all 3 images of the class new are of one group"
        " or exact duplicates, such as new/9-0.png. Add images of other groups, or a validation split, or leave the"
        " class out."
    )
    with pytest.raises(InputError, match=r"data.folds=3: the 3 images of the class new are of only 1 groups"):
        opened(tmp_path / "data", fold=0, folds=3)


def test_a_cut_that_no_choice_of_groups_can_give_is_refused(tmp_path: Path) -> None:
    # Three groups, each with two of three classes: on one side there is always a class without images.
    for group, labels in enumerate(("ab", "bc", "ca")):
        for label in labels:
            write(tmp_path / "data", label, group, 0, seed=10 * group + ord(label))
    with pytest.raises(InputError, match=r"keeps groups whole and has images of [abc] on both sides. Add images"):
        opened(tmp_path / "data")


def test_training_shares_keep_groups_whole(tmp_path: Path) -> None:
    prompts(tmp_path / "data")
    whole, half = (opened(tmp_path / "data", train_fraction=share) for share in (1.0, 0.5))
    assert whole.split("validation").ids == half.split("validation").ids
    kept, groups = half.split("train"), whole.split("train").groups
    assert kept.groups is not None
    assert groups is not None
    assert all(kept.groups.count(group) == groups.count(group) for group in {*kept.groups})
    assert np.bincount(kept.labels).tolist() == [24, 24]


def test_units_of_one_image_give_the_cut_of_the_first_versions() -> None:
    # Computed before groups existed: the first images of each class by the hash of "SEED:ID".
    units: Units = units_of(make([0, 1] * 10, None, list(range(1, 21))), 3)
    assert np.flatnonzero(hold_out(units, 0.3)[units.of_row]).tolist() == [3, 6, 11, 12, 16, 19]
    assert np.flatnonzero((folds(units, 4) == 1)[units.of_row]).tolist() == [0, 6, 10, 11, 15, 17]


def test_a_pair_of_duplicates_changes_little_of_the_cut() -> None:
    labels = [row % 3 for row in range(300)]
    without = units_of(make(labels, None, list(range(1, 301))), 0)
    pair = units_of(make(labels, None, [1, 2, 3, 1, *range(5, 301)]), 0)  # rows 0 and 3, of one class
    one, two = hold_out(without, 0.2)[without.of_row], hold_out(pair, 0.2)[pair.of_row]
    assert (one != two).sum() <= 4
    assert np.bincount(np.array(labels)[two]).tolist() == [20, 20, 20]
    assert np.bincount(np.array(labels)[(folds(pair, 5) == 2)[pair.of_row]]).tolist() == [20, 20, 20]
