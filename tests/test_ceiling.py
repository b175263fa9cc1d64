"""The limits of accuracy: images that no run gets right, and the learning curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import ceiling
from deepfake_cls.records import read_record, write_record
from tests.report.fake_runs import write


def correct(*wrong: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    right = np.ones(200, bool)
    right[list(wrong)] = False
    return right


def test_images_that_no_run_gets_right_are_counted_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write(tmp_path, seed=seed, correct=correct(0, 5, 11, 20 + seed)) for seed in range(3)]
    ceiling.main([str(folder) for folder in folders])
    output = capsys.readouterr().out
    assert "3 runs, 200 images; error of a run 2.0 ± 0.0 %." in output
    # Labels are 0, 1, ..., 4, 0, ...: images 0 and 5 have label 0, image 11 has label 1.
    assert "All runs are wrong on 3 images (1.5 %); by class: a 2, b 1, c 0, d 0" in output
    assert "At least one run is wrong on 6 images (3.0 %)." in output
    assert "Mean of the probabilities of all runs: 98.5 % right." in output
    assert "Choosing the best run for each image: 98.5 % right" in output


def test_runs_on_other_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [f"other {index}" for index in range(200)]
    folders = [write(tmp_path, seed=0), write(tmp_path, seed=1, ids=other)]
    with pytest.raises(SystemExit):
        ceiling.main([str(folder) for folder in folders])
    assert "was scored on other images than the first run." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ceiling.main([str(write(tmp_path, error="out of memory"))])
    assert "No finished runs" in capsys.readouterr().err


@pytest.mark.parametrize("curve", [(0.04, 3.0, 0.5), (0.0, 2.0, 0.4), (0.1, 50.0, 1.0)])
def test_the_fit_finds_the_curve_that_made_the_errors(curve: tuple[float, float, float]) -> None:
    a, b, c = curve
    sizes = np.array([2_000.0, 4_000.0, 8_000.0, 16_000.0])
    found = ceiling.fit_curve(sizes, a + b * sizes**-c)
    assert found[0] == pytest.approx(a, abs=3e-3)
    assert found[2] == pytest.approx(c, rel=0.05)
    for error in (a + 0.01, a + 0.02):
        assert ceiling.images_needed(found, error) == pytest.approx((b / (error - a)) ** (1 / c), rel=0.5)
    assert ceiling.images_needed((0.04, 3.0, 0.5), 0.04) == float("inf")


def test_errors_that_do_not_fall_have_no_promise() -> None:
    a, b, _ = ceiling.fit_curve(np.array([1_000.0, 2_000.0, 4_000.0]), np.array([0.1, 0.11, 0.12]))
    assert a == pytest.approx(0.11)
    assert b == 0


def test_the_learning_curve_takes_the_mean_over_runs_of_one_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for seed, (size, errors) in enumerate([(1000, 40), (1000, 44), (2000, 32), (4000, 26)]):
        folder = write(tmp_path, seed=seed, correct=correct(*range(errors)))
        record = read_record(folder)
        record.data["sizes"]["train"] = size
        write_record(folder, record)
        folders.append(str(folder))
    ceiling.main([*folders, "--sizes"])
    output = capsys.readouterr().out
    assert "1,000 training images: error 21.0 %." in output
    assert "4,000 training images: error 13.0 %." in output
    assert "Fit: " in output
    assert "Error 3 %: " in output
    with pytest.raises(SystemExit):
        ceiling.main([*folders[:3], "--sizes"])
    assert "three numbers of training images; found [1000.0, 2000.0]" in capsys.readouterr().err


def test_the_sheet_shows_the_images_that_no_run_gets_right(
    unibuc_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (unibuc_like / "validation.csv").read_text().split()[1:]
    ids = [line.split(",")[0] for line in lines]
    folders = []
    for seed in range(2):
        right = np.ones(len(ids), bool)
        right[[0, 1 + seed]] = False
        folders.append(str(write(tmp_path / "runs", seed=seed, correct=right, ids=ids, classes=["0", "1", "2"])))
    ceiling.main([*folders, "--data", str(unibuc_like), "--sheet", "wrong.png"])
    assert "wrong.png: 1 images" in capsys.readouterr().out
    with Image.open("wrong.png") as sheet:
        assert sheet.size == (1300, 150)
    with pytest.raises(SystemExit):
        ceiling.main([*folders, "--sheet", "wrong.png"])
    assert "--sheet needs --data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ceiling.main([*folders, "--sheet", "wrong.png", "--data", "nowhere"])
    assert "data.root=" in capsys.readouterr().err
    others = [str(write(tmp_path / "others", seed=seed, correct=np.zeros(len(ids), bool))) for seed in range(2)]
    with pytest.raises(SystemExit):
        ceiling.main([*others, "--sheet", "wrong.png", "--data", str(unibuc_like)])
    assert "has no validation image 'image 0'" in capsys.readouterr().err
