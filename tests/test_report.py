from __future__ import annotations

import base64
import csv
import re
from pathlib import Path

import pytest

from deepfake_cls import knn, report, train
from deepfake_cls.config import KnnConfig, ReportConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.results.record import Record, read_record, write_record
from tests.conftest import SMALL_DATA, SMALL_NET, configure


def render(*overrides: str) -> str:
    report.run(configure("report", ReportConfig, *overrides), False)
    return Path("reports/index.html").read_text()


def test_the_page_shows_both_models_and_stands_alone() -> None:
    knn.run(configure("knn", KnnConfig, *SMALL_DATA, "trainer.progress=false"), False)
    train.run(configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET), False)
    write_record(Path("runs/cnn/bad"), Record("cnn", "failed", "ff" * 32, {}, error="ValueError: <lr> was no number"))
    Path("runs/cnn/torn").mkdir()
    Path("runs/cnn/torn/result.json").write_text('{"schema": 1, "ki')
    page = render()
    records = [read_record(file.parent) for file in Path("runs").glob("*/*/result.json") if "torn" not in str(file)]
    assert len(records) == 3
    for record in records:
        assert record.identity[:12] in page
        if record.status == "ok":
            assert f"<b>{100 * record.metrics['val_acc']:.1f} %</b>" in page
    for name in records[0].data.get("classes") or records[1].data["classes"]:
        assert name in page
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 5  # accuracies, two confusion matrices, learning curves, classes
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing outside the file
    assert "&lt;lr&gt; was no number" in page
    with Path("reports/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["kind"], row["status"]) for row in rows) == [("cnn", "failed"), ("cnn", "ok"), ("knn", "ok")]
    by_id = {row["id"]: row for row in rows}
    for record in records:
        if record.status == "ok":
            assert float(by_id[record.identity[:12]]["val_acc"]) == record.metrics["val_acc"]
        else:
            assert by_id[record.identity[:12]]["val_acc"] == ""  # a dash is no zero


def test_nothing_to_report_says_where_to_start() -> None:
    with pytest.raises(InputError, match=r"no finished run there. Start with: python -m deepfake_cls.knn"):
        render()
    write_record(Path("runs/cnn/bad"), Record("cnn", "failed", "ff" * 32, {}, error="boom"))
    with pytest.raises(InputError, match="All 1 runs failed"):
        render()
