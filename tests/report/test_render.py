from __future__ import annotations

import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from deepfake_cls.report.collect import collect
from deepfake_cls.report.page import report_templates
from deepfake_cls.report.render import Table, csv_text, latex, markdown, table_rows
from deepfake_cls.report.study import Study, fill
from deepfake_cls.report.tables import all_tables
from tests.report.fake_runs import TINY, study_of, write

SIGNS = r"50 % of a_b & #3 $x$ {y} ~ ^ \ | <b> > ± × − – → ⅓"
TABLE = Table(
    4, "signs", SIGNS, ["one", SIGNS], [[SIGNS, "1"], ["2", SIGNS]], [SIGNS, "plain"], [{"arm": SIGNS}], [SIGNS]
)


@pytest.fixture
def tables(full_study: Study) -> list[Table]:
    return [*all_tables(full_study), TABLE]


def csv_of(study: Study) -> str:
    return csv_text(table_rows(all_tables(study)))


def count_cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_markdown_rows_have_as_many_cells_as_the_head(tables: list[Table]) -> None:
    blocks = markdown(tables).split("### ")[1:]
    assert len(blocks) == len(tables)
    for block, table in zip(blocks, tables, strict=True):
        assert block.startswith(f"Table {table.number}: {table.title}\n\n| ")
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len(lines) == len(table.rows) + 2
        assert {count_cells(line) for line in lines} == {len(table.columns) + 1}
        assert set(lines[1]) == {"|", "-"}
        assert [line for line in block.splitlines() if line.startswith("- ")] == [f"- {note}" for note in table.notes]


def test_latex_is_well_formed(tables: list[Table]) -> None:
    for table in tables:
        text = latex([table])
        unescaped = re.sub(r"\\[\\%_&#${}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")
        assert unescaped.count("$") % 2 == 0
        assert "%" not in unescaped
        assert "#" not in unescaped
        assert text.isascii() or not set("±×−–→⅓~") & set(text)
        assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert len(rows) == len(table.rows) + 1
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(table.columns) - 1
        assert f"\\begin{{tabular}}{{{'l' * len(table.columns)}}}" in text
    in_text = re.sub(r"\\label\{[^}]*\}|\\[_a-z]+", "", latex(tables))
    assert "_" not in in_text


def test_latex_replaces_special_characters() -> None:
    text = latex([Table(1, "a", r"\{", ["%_&#$"], [["^~<>"]], ["±×−–→⅓"])])
    for expected in (
        r"\caption{\textbackslash{}\{}",
        r"\%\_\&\#\$ \\",
        r"\textasciicircum{}\textasciitilde{}$<$$>$ \\",
        r"$\pm$$\times$$-$--$\to$$\frac13$",
    ):
        assert expected in text


class Tags(HTMLParser):
    """Tags and texts of a page; fails if a tag is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_escapes_special_characters(tables: list[Table]) -> None:
    macros = report_templates().get_template("macros.html").module
    for table in tables:
        page = Tags()
        page.feed(macros.section(table))  # type: ignore[attr-defined]  # a macro of the template
        assert not page.open
        assert "b" not in page.tags
        assert page.tags.count("td") == sum(map(len, table.rows))
        assert page.tags.count("th") == len(table.columns)
        assert page.tags.count("li") == len(table.notes) + len(table.details)
        assert page.tags.count("details") == bool(table.details)
    assert page.texts.count(SIGNS) == 5  # a column, two cells, a note and a detail
    assert f"Table 4: {SIGNS}" in page.texts


def test_the_same_records_give_the_same_csv(all_runs: Path, full_study: Study, tmp_path: Path) -> None:
    text = csv_of(full_study)
    records = collect(all_runs)
    assert csv_of(fill(TINY, records[::-1])) == text
    for index, file in enumerate(sorted(all_runs.rglob("result.json"), reverse=True)):
        shutil.copytree(file.parent, tmp_path / f"moved {index % 3}" / str(index))
    assert csv_of(study_of(tmp_path)) == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == sum(len(table.data) for table in all_tables(full_study))
    assert {row["table"] for row in rows} == {str(number) for number in range(1, 11)}
    for row in rows:
        assert not {"60.0", "61.0", "62.0", "70.0"} & set(row.values())  # seconds
        assert str(all_runs) not in "".join(str(value) for value in row.values())
    assert not any("second" in key or "time" in key for key in rows[0])


def test_missing_values_are_empty_in_the_csv(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.5"], error="boom")
    write(tmp_path, [*TINY, "dropout=0.0"])
    rows = list(csv.DictReader(io.StringIO(csv_of(study_of(tmp_path)))))
    row = next(row for row in rows if row["arm"] == "dropout 0.5")
    assert (row["experiment"], row["failed"], row["seeds"], row["reported"]) == ("table5_dropout", "1", "0", "0.931")
    assert row.get("accuracy", "") == row.get("p", "") == row["gap"] == row["runs"] == ""
    text = csv_text(table_rows([TABLE]))
    assert next(csv.DictReader(io.StringIO(text)))["arm"] == SIGNS
    assert "\r" not in text
