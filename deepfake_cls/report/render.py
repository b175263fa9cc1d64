"""A table, the text of its cells, and tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepfake_cls.notation import plural
from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.intervals import Summary
from deepfake_cls.stats.verdict import ClaimVerdict, points

DASH = "–"
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", ">": "$>$", "<": "$<$"}
    | {"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--", "→": r"$\to$", "⅓": r"$\frac13$"}
)


@dataclass(frozen=True)
class Table:
    """A table as text for readers, and its values as data.

    Attributes:
        number: Number in the paper; 10 and those of plugins are not in the paper. None for tables about the paper.
        name: Identifier in files and links.
        title: Heading.
        columns: Column headings.
        rows: Cells as text; a dash where there is no run.
        notes: Sentences below the table.
        data: Rows of the CSV.
        details: Further sentences, which the page shows on request.
        filled: Whether it has runs to show; a table without is made only on request.
    """

    number: int | None
    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    filled: bool = True

    @property
    def heading(self) -> str:
        """``Table 4: Learning rate``."""
        return self.title if self.number is None else f"Table {self.number}: {self.title}"


def percent(value: float | None) -> str:
    """A fraction in per cent, or a dash."""
    return DASH if value is None else f"{100 * value:.1f}"


def mean_text(summary: Summary | None) -> str:
    """``92.1 ± 0.4 (n = 3)``: mean and standard deviation over seeds, in per cent."""
    if summary is None:
        return DASH
    sd = "" if summary.sd is None else f" ± {100 * summary.sd:.1f}"
    return f"{100 * summary.mean:.1f}{sd} (n = {summary.seeds})"


def interval_text(difference: Difference) -> str:
    """``+0.4 (−1.2 to +2.0)``, in points."""
    return f"{points(difference.estimate)} ({points(difference.low)} to {points(difference.high)})"


def images_text(difference: Difference) -> str:
    """``1,250 images``, or ``1,250 images in 135 groups`` where groups are the unit."""
    groups = "" if difference.groups is None else f" in {difference.groups:,} groups"
    return f"{difference.images:,} images{groups}"


def claim_text(verdict: ClaimVerdict) -> str:
    """``excluded``, ``compatible``, ``compatible, as is 0``, ``not tested``."""
    return f"{verdict.word}, as is 0" if verdict.undecided else verdict.word


def hardware_text(device: str, precision: str, threads: int) -> str:
    """``NVIDIA H100, bf16-mixed, 8 threads``."""
    return f"{device}, {precision}, {plural(threads, 'thread')}"


def markdown(tables: Sequence[Table]) -> str:
    """Tables as GitHub Markdown, each with a heading."""
    parts = []
    for table in tables:
        rows, notes = markdown_rows(table.columns, table.rows), "".join(f"\n- {note}" for note in table.notes)
        parts.append(f"### {table.heading}\n\n{rows}\n{notes}\n")
    return "\n".join(parts)


def markdown_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without heading as GitHub Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in [columns, *rows]]
    lines.insert(1, "|" + "---|" * len(columns))
    return "\n".join(lines)


def latex(tables: Sequence[Table]) -> str:
    """Tables as LaTeX ``table`` environments; they need the package booktabs."""
    parts = []
    for table in tables:
        head, *rows = [
            " & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in [table.columns, *table.rows]
        ]
        body = "\n".join([r"\toprule", head, r"\midrule", *rows, r"\bottomrule"])
        notes = " ".join(table.notes).translate(LATEX)
        parts.append(
            f"\\begin{{table}}\n\\centering\n\\caption{{{table.title.translate(LATEX)}}}\n\\label{{tab:{table.name}}}\n"
            f"\\begin{{tabular}}{{{'l' * len(table.columns)}}}\n{body}\n\\end{{tabular}}\n\n"
            f"{{\\footnotesize {notes}}}\n"
            "\\end{table}\n"
        )
    return "\n".join(parts)


def table_rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The rows of ``tables.csv``."""
    return [{"table": table.number, "experiment": table.name, **row} for table in tables for row in table.data]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; the columns are all keys in the order of their first occurrence."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
