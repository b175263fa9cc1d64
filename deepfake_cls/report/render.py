"""A table, the texts of its cells, and tables as Markdown, LaTeX, HTML and CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.intervals import Summary
from deepfake_cls.stats.verdict import points

DASH = "–"

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
_LATEX |= {
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "→": r"$\to$",
    "⅓": r"$\frac13$",
    "~": r"\textasciitilde{}",
}
_LATEX |= {"^": r"\textasciicircum{}", ">": "$>$", "<": "$<$"}


@dataclass(frozen=True)
class Table:
    """A table as text for readers, and its values as data.

    Attributes:
        number: As in the paper; 10 is ours, and plugins may add more.
        name: Word for files and anchors.
        title: Heading.
        columns: Headings of the columns.
        rows: Cells as text; a dash stands for what was not run.
        notes: Sentences below the table.
        data: The same as numbers, a row for each line of the CSV.
    """

    number: int
    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, or a dash."""
    return DASH if value is None else f"{100 * value:.{digits}f}"


def mean_text(found: Summary | None) -> str:
    """``92.1 ± 0.4 (n = 3)``: mean and standard deviation over seeds, in per cent."""
    if found is None:
        return DASH
    spread = "" if found.sd is None else f" ± {100 * found.sd:.1f}"
    return f"{100 * found.mean:.1f}{spread} (n = {found.seeds})"


def interval_text(found: Difference) -> str:
    """``+0.4 (−1.2 to +2.0)``, in points."""
    return f"{points(found.estimate)} ({points(found.low)} to {points(found.high)})"


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def markdown(tables: Sequence[Table]) -> str:
    """Tables for GitHub, each under a heading."""
    parts = []
    for table in tables:
        lines = [
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in [table.columns, *table.rows]
        ]
        lines.insert(1, "|" + "---|" * len(table.columns))
        notes = "".join(f"\n- {note}" for note in table.notes)
        parts.append(f"### Table {table.number}: {table.title}\n\n" + "\n".join(lines) + f"\n{notes}\n")
    return "\n".join(parts)


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments; they need the package booktabs."""

    def escaped(text: str) -> str:
        return "".join(_LATEX.get(sign, sign) for sign in text)

    parts = []
    for table in tables:
        lines = [" & ".join(map(escaped, row)) + r" \\" for row in [table.columns, *table.rows]]
        body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
        notes = escaped(" ".join(table.notes))
        parts.append(
            f"\\begin{{table}}\n\\centering\n\\caption{{{escaped(table.title)}}}\n\\label{{tab:{table.name}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(table.columns)}}}\n{body}\n\\end{{tabular}}\n\n"
            f"{{\\footnotesize {notes}}}\n"
            "\\end{table}\n"
        )
    return "\n".join(parts)


def as_html(table: Table) -> str:
    """One table with its notes."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f'<h2 id="{table.name}">Table {table.number}: {html.escape(table.title)}</h2><div class="wide"><table>'
        f"<thead>{row(table.columns, 'th')}</thead><tbody>{''.join(row(cells, 'td') for cells in table.rows)}</tbody>"
        f'</table></div><ul class="notes">{notes}</ul>'
    )


def as_csv(tables: Sequence[Table]) -> str:
    """A row for each line of each table; the same records give the same bytes, since no time is in it."""
    rows = [{"table": table.number, **row} for table in tables for row in table.data]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
