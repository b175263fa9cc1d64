"""``benchmarks.twins``: a cut that separates twins gives an accuracy that new images do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.twins import measure


def test_a_cut_by_group_gives_the_accuracy_on_new_images(tmp_path: Path) -> None:
    rows = measure(tmp_path, 100, 200, [0, 1, 2])
    assert [row["n"] for row in rows] == [40] * 6 + [200]
    assert [row["groups"] for row in rows] == [""] * 3 + [20] * 3 + [""]
    accuracies = [float(str(row["accuracy"])) for row in rows]
    by_image, by_group, new = accuracies[:3], accuracies[3:6], accuracies[6]
    assert min(by_image) >= 0.6
    assert max(by_group) <= 0.4
    assert sum(by_group) / 3 == pytest.approx(new, abs=0.15)
