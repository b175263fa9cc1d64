from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepfake_cls.figures import mistakes_figure
from deepfake_cls.records import read_predictions, write_predictions
from deepfake_cls.report.collect import collect
from deepfake_cls.report.datasets import data_sets
from deepfake_cls.report.page import write_page
from deepfake_cls.report.plots import contact_sheet, table_plots
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables import all_tables
from tests.conftest import SMALL_DATA
from tests.report.fake_runs import FOLDS, TINY, fold, random_correct, render, study_of, write


def captions(study: Study) -> list[str]:
    """Captions of the figures below the tables."""
    return [caption for table in all_tables(study) for _, caption in table_plots(table, study)]


def page_of(root: Path, study: Study) -> str:
    records = collect(root)
    return write_page(
        root / "page.html", records, data_sets(records, study), study, all_tables(study), study.notes()
    ).read_text()


@pytest.mark.usefixtures("no_images")
def test_one_run_is_enough_for_its_figures(tmp_path: Path) -> None:
    write(tmp_path, TINY)
    # Recall and confusion matrix; the sweeps that share the arm have nothing to compare.
    assert len(captions(study_of(tmp_path))) == 2


@pytest.mark.usefixtures("no_images")
def test_the_page_of_all_runs(all_runs: Path, full_study: Study, tmp_path: Path) -> None:
    full_study.omitted = 1
    full_study.hardware["cnn"] = ("cpu <1>", "32-true", 1)
    records, tables = collect(all_runs), all_tables(full_study)
    page = write_page(tmp_path / "page.html", records, data_sets(records, full_study), full_study, tables).read_text()
    # First part: accuracy, three confusion matrices, learning curves. Tables: two figures for each of five experiments,
    # KNN by k, recall, confusion matrix, flip TTA.
    assert page.count("<img") == 5 + 2 * 5 + 1 + 2 + 1
    assert page.count("<table>") == len(tables) + 4  # configurations, recall, importance, all runs
    assert page.count("<p") - page.count("<pre") == page.count("</p>")
    assert "Main arm at scale tiny (width 8, 4 epochs). Hardware: CNN: cpu &lt;1&gt;, 32-true, 1 thread; KNN: " in page
    assert "Omitted: 1 run on other hardware or data." in page
    assert "1,136 of 1,250" in page
    assert "<th>group</th><th>alone %</th><th>drop, points</th><th>a / b</th><th>a / c</th>" in page
    assert "<td>colours</td><td>70.0</td><td>12.3</td><td>75.0</td>" in page
    assert "e_&lt;&amp;&gt;%#|$" in page
    assert not re.search(r"<&>", page)
    # The page shows the statistics behind a verdict on request only.
    details = re.findall(r"<details><summary>Statistics</summary>(.*?)</details>", page, re.DOTALL)
    assert len(details) == 5
    assert "P(arm &gt; baseline)" in details[0]
    assert "P(arm" not in re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)


@pytest.mark.usefixtures("no_images")
def test_without_matching_runs_the_page_shows_settings_and_command(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "epochs=7"])
    page = page_of(tmp_path, study_of(tmp_path))
    start = (
        "no runs at these settings yet (scale=tiny data=synthetic) for main arm (tables 7 to 9), table1_knn,"
        " table1_statistics, table4_lr"
    )
    assert start in page
    assert "To run the first: deepfake-cls train scale=tiny -m seed=0,1,2</li>" in page
    assert "Discrepancies" not in page


@pytest.mark.usefixtures("no_images")
def test_a_failed_run_does_not_break_the_page(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.0"], error="ValueError: <lr>")
    for override in ("dropout=0.3", "dropout=0.5"):
        write(tmp_path, [*TINY, override])
    page = page_of(tmp_path, study_of(tmp_path))
    assert "Failed: dropout 0, seed 0: ValueError: &lt;lr&gt;" in page
    assert "failed: ValueError: &lt;lr&gt;" in page


@pytest.mark.usefixtures("no_images")
def test_names_of_classes_that_are_not_utf8_are_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs", TINY, classes=["real", "caf\udce9"])
    page = render("runs=runs")  # with its figures
    assert r"<td>caf\udce9</td>" in page


def test_missing_predictions_do_not_break_the_tables(tmp_path: Path) -> None:
    path = write(tmp_path, [*TINY, *SMALL_DATA], correct=random_correct(0.5, 0, 20), flipped=random_correct(0.6, 0, 20))
    (path / "predictions.npz").unlink()
    study = study_of(tmp_path, [*TINY, *SMALL_DATA])
    assert list(study.main.runs) == [0]
    assert any(note.startswith("Omitted: ") for table in all_tables(study) for note in table.notes)
    assert not any("confident mistakes" in caption for caption in captions(study))


def test_the_contact_sheet_shows_the_most_confident_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepfake_cls.config import SyntheticConfig
    from deepfake_cls.data.images import open_images
    from deepfake_cls.data.sources import read_manifest

    data = SyntheticConfig(train_size=40, validation_size=20, test_size=10, workers=1)
    split = open_images(read_manifest(data), "validation", data, progress=False)
    correct = np.arange(20) % 5 > 1  # classes 0 and 1 are wrong
    path = write(tmp_path, [*TINY, *SMALL_DATA], correct=correct, ids=split.ids)
    _, labels, probs = read_predictions(path / "predictions.npz")
    probs = probs ** np.linspace(1, 2, 20, dtype=np.float32)[:, None]  # later images are more confident
    probs /= probs.sum(axis=1, keepdims=True)
    write_predictions(path / "predictions.npz", split.ids, labels, probs)
    run = collect(tmp_path)[0]
    run.record.data["size"] = list(split.store.size)
    rows: list[tuple[str, list[float]]] = []

    def recorded(figure_rows: list[tuple[str, NDArray[np.uint8], list[float]]]) -> Figure:
        for label, images, confidence in figure_rows:
            rows.append((label, confidence))
            assert len(images) == len(confidence)
        return mistakes_figure(figure_rows)

    monkeypatch.setattr("deepfake_cls.figures.mistakes_figure", recorded)
    assert contact_sheet(run) is not None
    assert [label for label, _ in rows] == ["true: a\npredicted:\nb", "true: b\npredicted:\nc"]
    for label, (_, confidence) in enumerate(rows):
        assert confidence == probs[label::5, label + 1][::-1].tolist()
        assert confidence == sorted(confidence, reverse=True) != confidence[::-1]
    write(tmp_path, [*TINY, *SMALL_DATA], correct=correct, ids=[f"other {index}" for index in range(20)])
    assert contact_sheet(collect(tmp_path)[0]) is None  # the available images are different ones
    write(tmp_path, [*TINY, *SMALL_DATA], correct=np.ones(20, dtype=np.bool_), ids=split.ids)
    assert contact_sheet(collect(tmp_path)[0]) is None  # no mistakes


def test_without_images_there_is_no_contact_sheet(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, fold(seed), seed, ids=[f"{seed} {index}" for index in range(200)])
    study = study_of(tmp_path, FOLDS)
    assert len(study.main.runs) == 2
    assert contact_sheet(study.main.runs[0]) is None
    assert "Recall by class of the main arm." in captions(study)
    assert not any("confident mistakes" in caption for caption in captions(study))


@pytest.mark.usefixtures("no_images")
def test_more_classes_than_the_paper_has(tmp_path: Path) -> None:
    write(tmp_path, fold(0), classes=[f"class {label}" for label in range(7)])
    assert "Recall by class of the main arm." in captions(study_of(tmp_path, FOLDS))
