from __future__ import annotations

import base64
import csv
import re
from pathlib import Path

import pytest

from deepfake_cls import knn, train
from deepfake_cls.config import KnnConfig, ReportConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.report import __main__ as report
from deepfake_cls.report import table
from deepfake_cls.report.render import Table
from deepfake_cls.report.study import Study
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure
from tests.report.fake_runs import TINY, make, random_correct, render, repeat, write


def test_the_page_shows_both_models_and_contains_everything() -> None:
    knn.run(configure("knn", KnnConfig, *SMALL_DATA, "trainer.progress=false"), False)
    train.run(configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET), False)
    write_record(Path("runs/cnn/bad"), Record("cnn", "failed", "ff" * 32, {}, error="ValueError: <lr> is not a number"))
    Path("runs/cnn/truncated").mkdir()
    Path("runs/cnn/truncated/result.json").write_text('{"schema": 1, "ki')
    page = render()
    records = [
        read_record(file.parent) for file in Path("runs").glob("*/*/result.json") if "truncated" not in str(file)
    ]
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
    assert not re.search(r'(src|href)="(?!data:)', page)  # no reference to another file
    assert "&lt;lr&gt; is not a number" in page
    with Path("reports/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["kind"], row["status"]) for row in rows) == [("cnn", "failed"), ("cnn", "ok"), ("knn", "ok")]
    by_id = {row["id"]: row for row in rows}
    for record in records:
        if record.status == "ok":
            assert float(by_id[record.identity[:12]]["val_acc"]) == record.metrics["val_acc"]
        else:
            assert by_id[record.identity[:12]]["val_acc"] == ""  # not 0


def test_without_successful_runs_the_error_says_where_to_start() -> None:
    with pytest.raises(InputError, match=r"no finished run there. Start with: deepfake-cls knn"):
        render()
    write_record(Path("runs/cnn/bad"), Record("cnn", "failed", "ff" * 32, {}, error="boom"))
    with pytest.raises(InputError, match="All 1 runs failed"):
        render()


def test_the_network_table_needs_no_runs() -> None:
    done = call("deepfake_cls.report", "table=2", "scale=tiny", "output=output")
    assert done.stdout.startswith("### Table 2: Network")
    assert "11,087,749" in done.stdout
    assert sorted(file.name for file in Path("output").iterdir()) == ["tables.csv", "tables.md", "tables.tex"]


@pytest.mark.parametrize("number", [0, 12])
def test_an_unknown_table_is_refused(number: int) -> None:
    known = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    hint = "A table of your own needs plugins=[MODULE]."
    with pytest.raises(InputError) as error:
        make(f"table={number}")
    assert str(error.value) == f"table={number}: expected one of {known}, or null for all. {hint}"


@pytest.mark.usefixtures("no_images", "registries")
def test_a_registered_table_is_printed_and_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    @table(12)
    def seeds_table(study: Study) -> list[Table]:
        seeds = [[one.label, str(len(one.runs))] for one in study.experiments["table5_dropout"].arms]
        return [
            Table(12, "seeds", "Seeds", ["arm", "seeds"], seeds, data=[{"arm": arm} for arm, _ in seeds]),
            Table(12, "second", "Second", ["arm"], [["none"]]),
        ]

    for override in ("dropout=0.3", "dropout=0.5"):
        write(Path("runs"), [*TINY, override])
    make("table=12", "scale=tiny")
    output = capsys.readouterr().out
    assert output.startswith(
        "### Table 12: Seeds\n\n| arm | seeds |\n|---|---|\n| dropout 0 | 0 |\n| dropout 0.3 | 1 |\n"
    )
    assert "### Table 12: Second\n" in output
    assert '<h2 id="seeds">Table 12: Seeds</h2>' in Path("reports/index.html").read_text()
    make("scale=tiny", "output=all")
    assert "### Table 12: Seeds" in Path("all/tables.md").read_text()
    assert '<h2 id="seeds">Table 12: Seeds</h2>' in Path("all/index.html").read_text()
    assert Path("all/tables.csv").read_text().splitlines()[-1].startswith("12,")


@pytest.mark.usefixtures("no_images")
def test_the_overrides_select_the_runs_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        for override, share in (("dropout=0.3", 0.9), ("dropout=0.5", 0.5)):
            write(Path("runs"), [*TINY, override], seed, random_correct(share, seed))
    make("table=5", "scale=tiny")
    output = capsys.readouterr().out
    assert "### Table 5: Dropout\n" in output
    assert "### Table 4" not in output
    assert "| baseline |" in output
    assert "dropout 0.5: worse" in output
    assert "missing" not in output
    assert "To run" not in output
    page = Path("reports/index.html").read_text()
    assert page.index("Discrepancies in the paper") < page.index(">All runs</h2>")
    make("table=5", "output=small")
    output = capsys.readouterr().out
    assert "(n = 3)" not in output
    start = "Runs with these settings are missing: scale=small data=synthetic. To run them: deepfake-cls train"
    assert f"- {start} experiment=table5_dropout\n" in output
    assert "Discrepancies" not in Path("small/index.html").read_text()


@pytest.mark.usefixtures("no_images")
def test_all_tables_in_all_formats(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("runs"), TINY)
    write(Path("runs"), kind="knn", overrides=[])
    write(Path("runs"), kind="statistics", overrides=[])
    write(Path("runs"), [*TINY, "dropout=0.5"])
    make("scale=tiny")
    for name in ("tables.md", "tables.tex", "tables.csv", "runs.csv", "index.html"):
        assert (Path("reports") / name).stat().st_size > 100, name
    text = Path("reports/tables.md").read_text()
    # Those without runs are omitted, and a line at the end says how to make them.
    assert re.findall(r"^### Table (\d+)", text, re.MULTILINE) == ["1", "2", "3", "5", "5", "7", "8", "9"]
    missing = "no runs at these settings yet (scale=tiny data=synthetic) for table4_lr, table6_alpha, table6_controls"
    command = "deepfake-cls train experiment=table4_lr scale=tiny"
    line = f"The tables of the paper are incomplete: {missing}, table10_components. To run the first: {command}"
    assert text.endswith(f"\n\n{line}\n")
    assert capsys.readouterr().out.endswith(f"\n{line}\n")
    assert line in Path("reports/index.html").read_text()


@pytest.mark.usefixtures("no_images")
def test_one_configuration_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("runs"), TINY)
    assert "Discrepancies" not in render("scale=tiny")
    make("scale=tiny", "table=4")  # a table without a comparison says how to fill it
    command = "deepfake-cls train experiment=table4_lr scale=tiny"
    assert f"- Runs with these settings are missing: scale=tiny data=synthetic. To run them: {command}\n" in (
        capsys.readouterr().out
    )


def test_multirun_is_refused() -> None:
    with pytest.raises(InputError, match="without -m"):
        report.run(configure("report", ReportConfig), True)


@pytest.mark.usefixtures("no_images")
def test_require_refuses_tables_with_missing_runs() -> None:
    for seed in range(2):
        write(Path("runs"), seed=seed)
    make(*TINY, "table=8", "require=2")
    assert "Recall by class" in Path("reports/tables.md").read_text()
    Path("reports/tables.md").unlink()
    with pytest.raises(InputError, match=r"require=3: 1 runs are missing, first main arm, seed 2"):
        make(*TINY, "table=8", "require=3")
    assert not Path("reports/tables.md").exists()


@pytest.mark.usefixtures("no_images")
def test_a_repeated_run_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    old = write(Path("runs"), [], kind="knn", correct=random_correct(0.3, 0), folder="before", time=1)
    new = repeat(write(Path("runs"), [], kind="knn", correct=random_correct(0.6, 0), folder="after", time=2), time=2)
    page = render()
    before, after = (read_record(folder).identity[:12] for folder in (old, new))
    assert before != after
    assert before not in page
    assert page.count(f"<small>{after}</small>") == 1
    with Path("reports/runs.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [after]
    assert "index.html: 1 run;" in capsys.readouterr().out
