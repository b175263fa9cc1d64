"""``benchmarks.twins``: a cut that separates twins gives an accuracy that new images do not have."""

from __future__ import annotations

from pathlib import Path

from benchmarks.twins import measure


def test_a_cut_by_group_gives_the_accuracy_on_new_images(tmp_path: Path) -> None:
    by_image, by_group, new = measure(tmp_path, 100, 200, [0])
    assert (by_image["n"], by_group["n"], by_group["groups"], new["n"]) == (40, 40, 20, 200)
    assert float(str(by_image["accuracy"])) >= 0.7
    assert float(str(by_image["low"])) > float(str(by_group["high"]))
    assert float(str(by_group["low"])) <= float(str(new["accuracy"])) <= float(str(by_group["high"]))
