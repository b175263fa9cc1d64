"""The sections of the page: one for each data set, with the configuration that each model shows first."""

from __future__ import annotations

import csv
import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.errors import InputError
from deepfake_cls.records import read_record, write_record
from deepfake_cls.report.collect import collect
from deepfake_cls.report.datasets import DataSet, data_sets
from tests.report.fake_runs import (
    FOLDS,
    TINY,
    Correct,
    arm,
    fold,
    make,
    render,
    study_of,
    write,
)

pytestmark = pytest.mark.usefixtures("no_images", "no_figures")

MINE = (*TINY, "data=folder", "data.root=photos/mydata")
TOY = (*TINY, "data=folder", "data.root=toy")


def exactly(share: float) -> Correct:
    return np.arange(200) < round(200 * share)


def headings(page: str) -> list[str]:
    """Names of the data sets, in the order of their sections."""
    first = re.findall(r"Data: <b>(.*?)</b>", page)
    return first + re.findall(r'<h2 id="data\d+">(.*?)</h2>', page)


def cards(page: str) -> list[tuple[str, str]]:
    """Name and accuracy of each card, in their order."""
    return re.findall(r'<div class="card">(.*?)<b>(.*?)</b>', page)


def sets_of(root: Path, *overrides: str) -> list[DataSet]:
    return data_sets(collect(root), study_of(root, overrides))


def write_sweep(root: Path, data: tuple[str, ...] = MINE) -> None:
    """Three seeds of three learning rates and three dropouts; the newest and the best are arms."""
    arms = {"lr=0.004": 0.88, "dropout=0.0": 0.9, "dropout=0.5": 0.89, "lr=0.0013": 0.86, "lr=0.013": 0.87}
    for index, (override, share) in enumerate(arms.items()):
        for seed in range(3):
            write(root, [*data, override], seed, exactly(share + 0.01 * seed), time=10 * index + seed)


def test_the_headline_is_the_configuration_that_the_command_names() -> None:
    write_sweep(Path("runs"))
    for shift, share in ((0, 0.3), (2, 0.28)):
        write(Path("runs"), [*MINE[1:], f"shift={shift}"], correct=exactly(share), kind="knn", time=100 + shift)
    page = render(*MINE)
    assert cards(page) == [("CNN", "89.0 ± 1.0 %"), ("KNN", "30.0 %")]
    assert (
        "mean ± standard deviation of validation accuracy over 3 seeds; 95 % interval (the wider of that over seeds and"
        " that over images) 83.9 to 92.6 %" in page
    )
    assert "Settings: scale=tiny. Chosen: named by this command, among 5 configurations." in page
    assert "Settings: the defaults. Chosen: the closest to the defaults of 2 configurations." in page
    rows = re.findall(r"<tr><td>(CNN|KNN)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>200</td></tr>", page)
    assert rows[0] == ("CNN", "scale=tiny", "89.0 ± 1.0 (n = 3)", "83.9 to 92.6")
    assert [row[1] for row in rows[1:5]] == [
        f"scale=tiny {text}" for text in ("dropout=0", "dropout=0.5", "lr=0.0013", "lr=0.013")
    ]
    assert [row[:2] for row in rows[5:]] == [("KNN", "the defaults"), ("KNN", "shift=2")]
    # Without overrides, the command names none of these configurations.
    page = render()
    assert cards(page) == [("CNN", "89.0 ± 1.0 %"), ("KNN", "30.0 %")]
    assert "Settings: scale=tiny. Chosen: the closest to the defaults of 5 configurations." in page


def test_a_headline_has_the_most_seeds_and_of_equals_the_newest() -> None:
    for seed in range(2):
        write(Path("runs"), [*MINE, "lr=0.02"], seed, exactly(0.5), time=seed)
    write(Path("runs"), [*MINE], 0, exactly(0.9), time=3)
    page = render()
    assert cards(page) == [("CNN", "50.0 ± 0.0 %")]
    assert "Settings: scale=tiny lr=0.02. Chosen: the most seeds of 2 configurations." in page
    for seed in range(2):
        write(Path("runs"), [*MINE, "lr=0.01"], seed, exactly(0.4), time=4 + seed)
    page = render()
    assert cards(page) == [("CNN", "40.0 ± 0.0 %")]
    assert "Settings: scale=tiny lr=0.01. Chosen: the newest of 2 configurations." in page


def test_equal_accuracies_of_seeds_are_not_certain() -> None:
    for seed in range(2):
        write(Path("runs"), MINE, seed, np.arange(13) == 0)
    page = render()
    assert cards(page) == [("CNN", "7.7 ± 0.0 %")]
    assert "that over images) 1.4 to 33.3 %" in page
    assert "the wider of the 95 % t interval over seeds and the Wilson interval over images." in page


def test_settings_that_differ_from_the_defaults_are_named() -> None:
    write(Path("runs"), [*MINE, "epochs=9", "augment.cutmix=null", "model.args.skips=false"])
    page = render()
    settings = "scale=tiny epochs=9 model.args.skips=false augment.cutmix=null"
    assert f"Settings: {settings}. Chosen: the only configuration." in page
    assert "95 % interval " in page
    assert "160 of 200 images correct" in page or " of 200 images correct" in page


def test_a_toy_run_does_not_replace_the_data_that_the_command_selects() -> None:
    mine = [*MINE, "data.resize=true"]
    write(Path("runs"), mine, 0, exactly(0.9), time=1, fingerprint="a" * 64, classes=["x", "y"])
    write(Path("runs"), mine[1:], 0, exactly(0.3), time=2, kind="knn", fingerprint="a" * 64, classes=["x", "y"])
    write(Path("runs"), TOY, 0, exactly(0.2), time=3, fingerprint="b" * 64, classes=["x", "y"])
    page = render(*MINE)
    assert headings(page) == ["mydata", "toy"]
    assert cards(page) == [("CNN", "90.0 %"), ("KNN", "30.0 %"), ("CNN", "20.0 %")]
    start = "folder, 2 classes, 1,000 train, 200 validation, 100×100"
    assert (
        f"<b>mydata</b> ({start}, resize=true, fingerprint {12 * 'a'}). Chance level: 50.0\N{NO-BREAK SPACE}%." in page
    )
    assert f"{start}, fingerprint {12 * 'b'}. Chance level: 50.0\N{NO-BREAK SPACE}%." in page
    assert "data mydata (folder)" in page  # in the list of all runs
    assert headings(render()) == ["toy", "mydata"]  # the newest training
    with Path("reports/runs.csv").open(newline="") as file:
        assert [row["root"] for row in csv.DictReader(file)] == ["mydata", "mydata", "toy"]


def test_knn_alone_is_never_before_a_training() -> None:
    write(Path("runs"), TOY, time=1, fingerprint="b" * 64)
    write(Path("runs"), MINE[1:], kind="knn", time=2, fingerprint="a" * 64)
    assert headings(render()) == ["toy", "mydata"]


def test_folders_of_one_name_are_told_apart_by_their_path(capsys: pytest.CaptureFixture[str]) -> None:
    for index, place in enumerate(("photos", "elsewhere", "toys")):
        for override, share in (("dropout=0.3", 0.9), ("dropout=0.5", 0.8)):
            overrides = [*MINE[:-1], f"data.root={place}/mydata", override]
            write(Path("runs"), overrides, 0, exactly(share - 0.2 * index), time=index, fingerprint=place[0] * 64)
    page = render(*MINE)
    assert headings(page) == ["photos/mydata", "toys/mydata", "elsewhere/mydata"]
    assert f"data mydata (folder), fingerprint {12 * 't'}" in page
    assert cards(page) == [("CNN", "90.0 %"), ("CNN", "50.0 %"), ("CNN", "70.0 %")]
    make(*MINE, "table=5")
    assert "| dropout 0.3 | 90.0 (n = 1) |" in capsys.readouterr().out


def test_runs_of_a_renamed_folder_are_used_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("runs"), TOY)
    study = study_of(Path("runs"), MINE)
    assert list(study.main.runs) == [0]
    make(*MINE)
    sentence = f"No run is on data.root={Path.cwd() / 'photos/mydata'}. The tables show runs on a folder toy."
    assert sentence in capsys.readouterr().out
    assert sentence in Path("reports/index.html").read_text()
    write(Path("runs"), MINE)
    assert study_of(Path("runs"), MINE).other_root is None


def test_numbered_classes_are_named_once() -> None:
    write(Path("runs"), TINY, classes=["0", "1", "real"])
    rows = re.findall(r"<tr><td>([^<]*)</td><td>\d", render())
    assert rows == ["class 0", "class 1", "real"]


def test_the_folds_of_a_data_set_are_one_data_set(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, fold(seed), seed, exactly(0.8 + 0.05 * seed), fingerprint=f"{seed}" * 64)
    (data,) = sets_of(tmp_path, *FOLDS)
    assert data.description == "unibuc, 5 classes, 1,200 images, 3 of 10 folds for validation, 100×100"
    (headline,) = data.headlines
    assert [run.record.seed for run in headline.runs] == [0, 1, 2]
    assert (headline.summary.seeds, round(headline.summary.mean, 6)) == (3, 0.85)
    assert headline.confusion.sum() == headline.images == 600


def test_an_evaluation_belongs_to_the_data_of_its_folder(tmp_path: Path) -> None:
    # The evaluation has no data.size: its model has one.
    write(tmp_path, [*MINE, "data.size=[100,100]"], fingerprint="a" * 64, time=1)
    write(tmp_path, TOY, fingerprint="b" * 64, time=2)
    for index, root in enumerate(("photos/mydata", "elsewhere")):
        folder = write(tmp_path, ["data=folder", f"data.root={root}"], kind="knn", folder=f"evaluation {index}", time=3)
        record = read_record(folder)
        config = {
            key: value for key, value in record.config.items() if key not in ("k", "features", "shift", "channels")
        }
        data = record.data | {"fingerprint": "e" * 64, "sizes": {"test": 200}}
        record.seconds = {"total": 9.0, "setup": 2.0, "evaluate": 7.0}
        write_record(
            folder, replace(record, kind="evaluate", config=config | {"split": "test", "tta": "none"}, data=data)
        )
    mine, toy, elsewhere = sorted(sets_of(tmp_path), key=lambda data: len(data.headlines[0].kind) * 10 - len(data.runs))
    assert [run.record.kind for run in mine.runs] == ["cnn", "evaluate"]
    assert (mine.name, [headline.kind for headline in mine.headlines]) == ("mydata", ["cnn"])
    assert [run.record.kind for run in toy.runs] == ["cnn"]
    assert (elsewhere.name, [headline.kind for headline in elsewhere.headlines]) == ("elsewhere", ["evaluate"])
    assert "200 test" in elsewhere.description
    page = render(f"runs={tmp_path}")
    assert page.count("evaluated in 7.0 s") == 1
    assert page.count("trained in 60.0 s") == 2
    assert "trained in 0.0 s" not in page


def test_runs_on_other_hardware_are_another_configuration(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, TINY, seed, exactly(0.5), time=seed)
    write(tmp_path, TINY, 3, exactly(0.9), hardware=("some gpu", "bf16-mixed", 8), time=9)
    (data,) = sets_of(tmp_path, *TINY)
    assert len(data.headlines[0].runs) == 3


def test_configurations_that_differ_only_in_hardware_show_it() -> None:
    for threads in (1, 2):
        write(Path("runs"), TINY, hardware=("some cpu", "32-true", threads))
    write(Path("runs"), [*TINY, "lr=0.001"])
    rows = re.findall(r"<tr><td>CNN</td><td>(.*?)</td>", render())
    assert sorted(rows) == ["scale=tiny lr=0.001", "scale=tiny, 1 thread", "scale=tiny, 2 threads"]


def test_if_every_run_failed_the_error_names_the_last_one() -> None:
    write(Path("runs"), TINY, 0, error="first", time=1)
    last = write(Path("runs"), TINY, 1, error="ValueError: boom", time=2)
    with pytest.raises(InputError, match=rf"All 2 runs failed, the last one with 'ValueError: boom' \({last}/result"):
        make(*TINY)
    assert not Path("reports").exists()


def test_failed_runs_are_listed_and_not_counted() -> None:
    write(Path("runs"), MINE, 0, error="ValueError: boom", time=2)
    write(Path("runs"), TOY, 0, exactly(0.7), time=1)
    page = render(*MINE)
    assert headings(page) == ["toy"]
    assert "failed: ValueError: boom" in page


def test_a_knn_run_with_more_neighbours_fills_table_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("runs"), ["k=[1,3,5,7,9,11]"], kind="knn", time=1)
    make("table=1")
    text = capsys.readouterr().out
    assert re.findall(r"^\| (\d+) \| \d", text, re.MULTILINE) == ["1", "3", "5", "7", "9", "11"]
    write(tmp_path / "few", ["k=[3,5,7]"], kind="knn", time=2)
    assert not arm(study_of(tmp_path / "few"), "table1_knn", "original").runs


def test_without_overrides_the_command_for_the_tables_of_the_own_data_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(Path("my runs"), [*MINE, "channels=RGB", "augment.cutmix=null"])
    page = render("runs=my runs")
    command = (
        "deepfake-cls report 'runs=\"my runs\"' data=folder data.root=photos/mydata scale=tiny channels=RGB"
        " augment.cutmix=null"
    )
    assert capsys.readouterr().out.endswith(f" which no training has. For the trainings on mydata: {command}\n")
    assert html.escape(command, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    make(*shlex.split(command)[2:])
    assert "table4_lr" in capsys.readouterr().out
    assert "### Table 8" in Path("reports/tables.md").read_text()


def test_runs_on_a_layout_whose_plugin_is_not_given_are_shown() -> None:
    write(Path("runs"), MINE, changed={"data": {"name": "own", "root": "photos/mydata"}})
    page = render()
    assert "<b>mydata</b> (own, 5 classes" in page
    assert "To run the first: deepfake-cls train -m seed=0,1,2" in page


def test_the_tables_name_their_data() -> None:
    for override in ("dropout=0.3", "dropout=0.5"):
        write(Path("runs"), [*TINY, override], time=1, fingerprint="a" * 64)
    write(Path("runs"), MINE, time=2, fingerprint="b" * 64)
    page = render(*TINY)
    assert headings(page) == ["mydata", "synthetic"]  # the overrides select no data, so the newest training is first
    assert "Data: synthetic. Main arm at scale tiny" in page
