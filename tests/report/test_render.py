from __future__ import annotations

import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from deepfake_cls.report.collect import collect
from deepfake_cls.report.render import Table, as_csv, as_html, latex, markdown
from deepfake_cls.report.study import Study, fill
from deepfake_cls.report.tables import all_tables
from tests.report.lab import TINY, study_of, write

NASTY = r"50 % of a_b & #3 $x$ {y} ~ ^ \ | <b> > ± × − – → ⅓"
TABLE = Table(4, "nasty", NASTY, ["one", NASTY], [[NASTY, "1"], ["2", NASTY]], [NASTY, "plain"], [{"arm": NASTY}])


@pytest.fixture
def tables(full: Study) -> list[Table]:
    return [*all_tables(full), TABLE]


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_markdown_rows_have_the_columns_of_their_head(tables: list[Table]) -> None:
    blocks = markdown(tables).split("### ")[1:]
    assert len(blocks) == len(tables)
    for block, one in zip(blocks, tables, strict=True):
        assert block.startswith(f"Table {one.number}: {one.title}\n\n| ")
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len(lines) == len(one.rows) + 2
        assert {cells(line) for line in lines} == {len(one.columns) + 1}
        assert set(lines[1]) == {"|", "-"}
        assert [line for line in block.splitlines() if line.startswith("- ")] == [f"- {note}" for note in one.notes]


def test_latex_is_well_formed(tables: list[Table]) -> None:
    for one in tables:
        text = latex([one])
        bare = re.sub(r"\\[\\%_&#${}]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert "%" not in bare
        assert "#" not in bare
        assert text.isascii() or not set("±×−–→⅓~") & set(text)
        assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert len(rows) == len(one.rows) + 1
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(one.columns) - 1
        assert f"\\begin{{tabular}}{{{'l' * len(one.columns)}}}" in text
    in_text = re.sub(r"\\label\{[^}]*\}|\\[_a-z]+", "", latex(tables))
    assert "_" not in in_text


def test_latex_says_each_sign() -> None:
    text = latex([Table(1, "a", r"\{", ["%_&#$"], [["^~<>"]], ["±×−–→⅓"])])
    for expected in (
        r"\caption{\textbackslash{}\{}",
        r"\%\_\&\#\$ \\",
        r"\textasciicircum{}\textasciitilde{}$<$$>$ \\",
        r"$\pm$$\times$$-$--$\to$$\frac13$",
    ):
        assert expected in text


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_shows_signs_as_they_are(tables: list[Table]) -> None:
    for one in tables:
        page = Tags()
        page.feed(as_html(one))
        assert not page.opened
        assert "b" not in page.seen
        assert page.seen.count("td") == sum(map(len, one.rows))
        assert page.seen.count("th") == len(one.columns)
        assert page.seen.count("li") == len(one.notes)
    assert page.texts.count(NASTY) == 4  # head, two cells, a note; the title has its number before it
    assert f"Table 4: {NASTY}" in page.texts


def test_csv_is_the_same_for_the_same_records(all_runs: Path, full: Study, tmp_path: Path) -> None:
    text = as_csv(all_tables(full))
    records = collect(all_runs)
    assert as_csv(all_tables(fill(TINY, records[::-1]))) == text
    for place, folder in enumerate(sorted(all_runs.rglob("result.json"), reverse=True)):
        shutil.copytree(folder.parent, tmp_path / f"moved {place % 3}" / str(place))
    assert as_csv(all_tables(study_of(tmp_path))) == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == sum(len(table.data) for table in all_tables(full))
    assert {row["table"] for row in rows} == {str(number) for number in range(1, 11)}
    for row in rows:
        assert not {"60.0", "61.0", "62.0", "70.0"} & set(row.values())  # seconds
        assert str(all_runs) not in "".join(str(value) for value in row.values())
    assert not any("second" in key or "time" in key for key in rows[0])


def test_csv_keeps_what_is_absent_empty(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "dropout=0.5"], error="boom")
    rows = list(csv.DictReader(io.StringIO(as_csv(all_tables(study_of(tmp_path))))))
    row = next(row for row in rows if row["arm"] == "dropout 0.5")
    assert (row["failed"], row["seeds"], row["reported"]) == ("1", "0", "0.931")
    assert row.get("accuracy", "") == row.get("p", "") == row["gap"] == row["runs"] == ""
    text = as_csv([TABLE])
    assert next(csv.DictReader(io.StringIO(text)))["arm"] == NASTY
    assert "\r" not in text
