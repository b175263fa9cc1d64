from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepfake_cls.figures import mistakes_figure
from deepfake_cls.report import sections as module
from deepfake_cls.report.collect import collect
from deepfake_cls.report.sections import contact_sheet, sections
from deepfake_cls.report.study import Study, fill
from deepfake_cls.report.tables import all_tables
from tests.conftest import SMALL_DATA
from tests.report.lab import FOLDS, TINY, fold, some_right, study_of, write


def page(found: Study) -> str:
    return "".join(sections(found, all_tables(found)))


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "validation_images", lambda record: None)


def test_without_runs_there_are_tables_and_findings() -> None:
    text = page(fill(TINY, []))
    assert text.count("<table>") == len(all_tables(fill(TINY, [])))
    assert "<img" not in text
    assert "Runs at scale tiny: width 8, 4 epochs.</p>" in text
    assert "1,136 of 1,250" in text
    assert text.count("<p") == text.count("</p>")


@pytest.mark.usefixtures("no_images")
def test_one_run_is_enough_for_its_figures(tmp_path: Path) -> None:
    write(tmp_path, TINY, hardware=("cpu <1>", "32-true", 1))
    text = page(study_of(tmp_path))
    # Curves of four experiments that share the arm; recall and confusions.
    assert text.count("<img") == 4 + 2
    assert "cnn: cpu &lt;1&gt;, 32-true, 1 thread.</p>" in text


@pytest.mark.usefixtures("no_images")
def test_all_runs_make_all_figures(full: Study) -> None:
    full.left_out = 1
    text = page(full)
    # Two for each of five experiments, neighbours, recall and confusions, flip TTA.
    assert text.count("<img") == 2 * 5 + 1 + 2 + 1
    assert "Left out, since made on other hardware or data: 1 run.</p>" in text
    assert "e_&lt;&amp;&gt;%#|$" in text
    assert not re.search(r"<&>", text)


def test_a_failed_run_breaks_no_page(tmp_path: Path) -> None:
    write(tmp_path, TINY, error="ValueError: <lr>")
    text = page(study_of(tmp_path))
    assert "<img" not in text
    assert "ValueError: &lt;lr&gt;" in text


def test_missing_answers_break_no_page(tmp_path: Path) -> None:
    path = write(tmp_path, [*TINY, *SMALL_DATA], right=some_right(0.5, 0, 20), flipped=some_right(0.6, 0, 20))
    (path / "predictions.npz").unlink()
    found = study_of(tmp_path)
    found.central.runs[0] = collect(tmp_path)[0]
    text = page(found)
    assert "Left out: " in text
    assert "most confident mistakes" not in text


def test_the_contact_sheet_shows_the_surest_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepfake_cls.config import SyntheticConfig
    from deepfake_cls.data.images import open_images
    from deepfake_cls.data.sources import read_manifest

    data = SyntheticConfig(train_size=40, validation_size=20, test_size=10, workers=1)
    split = open_images(read_manifest(data), "validation", data, progress=False)
    right = np.ones(20, dtype=np.bool_)
    right[split.labels == 0] = False
    path = write(tmp_path, [*TINY, *SMALL_DATA], right=right, ids=split.ids)
    entry = collect(tmp_path)[0]
    entry.record.data["size"] = list(split.store.size)
    labels = np.arange(20) % 5
    shown: list[tuple[str, list[float]]] = []

    def seen(rows: list[tuple[str, NDArray[np.uint8], list[float]]]) -> Figure:
        for label, images, confidence in rows:
            shown.append((label, confidence))
            assert len(images) == len(confidence)
        return mistakes_figure(rows)

    monkeypatch.setattr(module, "mistakes_figure", seen)
    assert contact_sheet(entry) is not None
    wrong = int((~right).sum())
    assert sum(len(confidence) for _, confidence in shown) == wrong == int((labels[~right] >= 0).sum())
    assert all(confidence == sorted(confidence, reverse=True) for _, confidence in shown)
    write(tmp_path, [*TINY, *SMALL_DATA], right=right, ids=[f"other {place}" for place in range(20)])
    assert contact_sheet(collect(tmp_path)[0]) is None  # the images at hand are others
    write(tmp_path, [*TINY, *SMALL_DATA], right=np.ones(20, dtype=np.bool_), ids=split.ids)
    assert contact_sheet(collect(tmp_path)[0]) is None  # no mistakes
    assert path.is_dir()


def test_images_that_are_gone_leave_the_contact_sheet_out(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, fold(seed), seed, ids=[f"{seed} {place}" for place in range(200)])
    found = study_of(tmp_path, FOLDS)
    assert len(found.central.runs) == 2
    assert contact_sheet(found.central.runs[0]) is None
    text = page(found)
    assert "Recall by class of the central arm." in text
    assert "most confident mistakes" not in text


@pytest.mark.usefixtures("no_images")
def test_more_classes_than_the_report_has_break_no_figure(tmp_path: Path) -> None:
    write(tmp_path, fold(0), classes=[f"class {place}" for place in range(7)])
    assert "Recall by class of the central arm." in page(study_of(tmp_path, FOLDS))
