"""Tables as Markdown, LaTeX, HTML and CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from deepfake_cls.report.tables import Table

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
