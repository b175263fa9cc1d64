from __future__ import annotations

import base64
import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from deepfake_cls import knn, train
from deepfake_cls.config import KnnConfig, ReportConfig, TrainConfig, conf_dir
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.report import __main__ as report
from deepfake_cls.report import page, sections, study, table
from deepfake_cls.report.render import Table
from deepfake_cls.report.study import Study
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure
from tests.report.lab import TINY, compose_once, repeat, some_right, write


@pytest.fixture(autouse=True)
def hydra_known_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(study, "compose", compose_once)
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (page, sections):
        monkeypatch.setattr(module, "validation_images", lambda record: None)


def make(*overrides: str) -> None:
    """The job of the entry point, as Hydra would call it."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("report", overrides=[*overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    report.run(configure("report", ReportConfig, *overrides), False)


def render(*overrides: str) -> str:
    make(*overrides)
    return Path("reports/index.html").read_text()


def test_the_page_shows_both_models_and_stands_alone() -> None:
    knn.run(configure("knn", KnnConfig, *SMALL_DATA, "trainer.progress=false"), False)
    train.run(configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET), False)
    write_record(Path("runs/cnn/bad"), Record("cnn", "failed", "ff" * 32, {}, error="ValueError: <lr> was no number"))
    Path("runs/cnn/torn").mkdir()
    Path("runs/cnn/torn/result.json").write_text('{"schema": 1, "ki')
    shown = render()
    records = [read_record(file.parent) for file in Path("runs").glob("*/*/result.json") if "torn" not in str(file)]
    assert len(records) == 3
    for record in records:
        assert record.identity[:12] in shown
        if record.status == "ok":
            assert f"<b>{100 * record.metrics['val_acc']:.1f} %</b>" in shown
    for name in records[0].data.get("classes") or records[1].data["classes"]:
        assert name in shown
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert len(images) == 5  # accuracies, two confusion matrices, learning curves, classes
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', shown)  # nothing outside the file
    assert "&lt;lr&gt; was no number" in shown
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


def test_a_table_of_the_network_needs_no_runs() -> None:
    done = call("deepfake_cls.report", "table=2", "scale=tiny", "output=here")
    assert done.stdout.startswith("### Table 2: The network")
    assert "11,087,749" in done.stdout
    assert sorted(file.name for file in Path("here").iterdir()) == ["tables.csv", "tables.md", "tables.tex"]


@pytest.mark.parametrize("word", ["table=11", "table=0"])
def test_a_table_that_nobody_registered_is_refused(word: str) -> None:
    done = call("deepfake_cls.report", word, check=False)
    assert done.returncode == 1
    known = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    hint = "A table of your own needs plugins=[MODULE]."
    assert done.stderr == f"error: {word}: expected one of {known}, or null for all. {hint}\n"


@pytest.mark.usefixtures("no_images", "registries")
def test_a_registered_table_is_printed_and_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    @table(11)
    def mine(study: Study) -> list[Table]:
        seeds = [[one.label, str(len(one.runs))] for one in study.experiments["table5_dropout"].arms]
        return [
            Table(11, "mine", "Seeds", ["arm", "seeds"], seeds, data=[{"arm": arm} for arm, _ in seeds]),
            Table(11, "more", "More", ["arm"], [["none"]]),
        ]

    for word in ("dropout=0.3", "dropout=0.5"):
        write(Path("runs"), [*TINY, word])
    make("table=11", "scale=tiny")
    shown = capsys.readouterr().out
    assert shown.startswith(
        "### Table 11: Seeds\n\n| arm | seeds |\n|---|---|\n| dropout 0 | 0 |\n| dropout 0.3 | 1 |\n"
    )
    assert "### Table 11: More\n" in shown
    assert '<h2 id="mine">Table 11: Seeds</h2>' in Path("reports/index.html").read_text()
    make("scale=tiny", "output=all")
    assert "### Table 11: Seeds" in Path("all/tables.md").read_text()
    assert '<h2 id="mine">Table 11: Seeds</h2>' in Path("all/index.html").read_text()
    assert Path("all/tables.csv").read_text().splitlines()[-1].startswith("11,")


@pytest.mark.usefixtures("no_images")
def test_the_words_say_which_runs_belong_to_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        for word, share in (("dropout=0.3", 0.9), ("dropout=0.5", 0.5)):
            write(Path("runs"), [*TINY, word], seed, some_right(share, seed))
    make("table=5", "scale=tiny")
    shown = capsys.readouterr().out
    assert "### Table 5: Dropout\n" in shown
    assert "### Table 4" not in shown
    assert "| baseline |" in shown
    assert "at scale tiny: worse" in shown
    text = Path("reports/index.html").read_text()
    assert "What does not add up" in text
    assert text.index("What does not add up") < text.index("<h2>All runs</h2>")
    make("table=5", "output=small")
    assert "(n = 3)" not in capsys.readouterr().out  # no run at this scale
    assert "What does not add up" not in Path("small/index.html").read_text()


@pytest.mark.usefixtures("no_images")
def test_all_tables_in_all_formats() -> None:
    write(Path("runs"), TINY)
    make("scale=tiny")
    for name in ("tables.md", "tables.tex", "tables.csv", "runs.csv", "index.html"):
        assert (Path("reports") / name).stat().st_size > 100, name
    assert Path("reports/tables.md").read_text().count("### Table ") == 16  # two for each of five experiments
    assert "What does not add up" not in Path("reports/index.html").read_text()  # one arm compares with nothing


def test_a_sweep_of_reports_is_refused() -> None:
    with pytest.raises(InputError, match="without -m"):
        report.run(configure("report", ReportConfig), True)


@pytest.mark.usefixtures("no_images")
def test_tables_may_be_refused_until_all_their_runs_are_there() -> None:
    for seed in range(2):
        write(Path("runs"), seed=seed)
    make(*TINY, "table=8", "require=2")
    assert "Recall by class" in Path("reports/tables.md").read_text()
    Path("reports/tables.md").unlink()
    with pytest.raises(InputError, match=r"require=3: 1 runs are missing, first the central arm .*, seed 2"):
        make(*TINY, "table=8", "require=3")
    assert not Path("reports/tables.md").exists()


@pytest.mark.usefixtures("no_images")
def test_a_run_that_is_repeated_after_an_edit_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    old = write(Path("runs"), [], kind="knn", right=some_right(0.3, 0), folder="before", time=1)
    new = repeat(write(Path("runs"), [], kind="knn", right=some_right(0.6, 0), folder="after", time=2), time=2)
    shown = render()
    before, after = (read_record(folder).identity[:12] for folder in (old, new))
    assert before != after
    assert before not in shown
    assert shown.count(f"<small>{after}</small>") == 1
    with Path("reports/runs.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [after]
    assert "index.html: 1 run;" in capsys.readouterr().out
