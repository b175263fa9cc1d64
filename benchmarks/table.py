"""Tables of results: Markdown and CSV.

This renders the Markdown of committed results again:

    python -m benchmarks.table benchmarks/results/*.json
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deepfake_cls.files import write_atomically

COLUMNS = ("measurement", "ours", "baseline", "ratio", "share of the limit")


@dataclass(frozen=True)
class Row:
    """One comparison, or a value of this project only. The fields are those of the JSON results.

    Attributes:
        what: The measured quantity and its unit.
        ours: Values of this project, one per repetition.
        peer: Values of the baseline.
        peer_name: Name of the baseline.
        more: Whether a larger value is better.
        limit: The hardware's limit, in the unit of ``ours``; None where it is unknown.
        note: Shown after ``what``.
    """

    what: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    peer_name: str = ""
    more: bool = True
    limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, by medians; None without a baseline."""
        return better(self.ours, self.peer, self.more) if self.peer else None

    @property
    def share(self) -> float | None:
        """The share of the limit that ours reaches, by the median."""
        return None if self.limit is None else better(self.ours, [self.limit], self.more)

    def cells(self) -> list[str]:
        """The row as text, one cell per column."""
        baseline = f"{spread(self.peer)} ({self.peer_name})" if self.peer else ""
        ratio = "" if self.ratio is None else f"{number(self.ratio)}×"
        share = "" if self.share is None else f"{100 * self.share:.0f} %"
        return [f"{self.what}; {self.note}" if self.note else self.what, spread(self.ours), baseline, ratio, share]

    def as_json(self) -> dict[str, Any]:
        """The row with its ratio and share."""
        return {**asdict(self), "ratio": self.ratio, "share": self.share}


def better(ours: list[float], baseline: list[float], more: bool = True) -> float:
    """How many times better ours is, by medians."""
    first, second = statistics.median(ours), statistics.median(baseline)
    return first / second if more else second / first


def spread(values: list[float]) -> str:
    """Median, with minimum and maximum where there are several values."""
    median = number(statistics.median(values))
    return f"{median} ({number(min(values))} to {number(max(values))})" if len(values) > 1 else median


def number(value: float) -> str:
    """Three significant digits, and all digits before the decimal point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def heading(result: dict[str, Any]) -> str:
    """The conditions of the measurements: hardware, versions, images, date, commit."""
    names = ("torch", "lightning", "scikit-learn", "faiss-cpu")
    packages = ", ".join(f"{name} {result['versions'][name]}" for name in names if name in result["versions"])
    instructions = f" ({result['instructions']})" if "instructions" in result else ""
    commit = (result["git"]["sha"] or "unknown")[:7] + ("*" if result["git"]["dirty"] else "")
    images = "embedded" if result["data"] == "embedded" else "from --data"
    return (
        f"{result['device']}{instructions}, {result['threads']} threads, {result['precision']}; {packages}; images:"
        f" {images}; {result['date'][:10]}, commit {commit}.\n\n"
        "Values are medians (minimum to maximum). The limit is the measured rate of matrix products. Baselines compute"
        " in fp32 and decode PNG files in every epoch, which are their defaults. This project decodes each image once,"
        " before the measurement.\n"
    )


def markdown(result: dict[str, Any]) -> str:
    """Heading and table of a result, from its JSON."""
    names = [entry.name for entry in fields(Row)]
    rows = [Row(**{name: row[name] for name in names}) for row in result["rows"]]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    return f"{heading(result)}\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def append_csv(file: Path, rows: list[dict[str, object]]) -> None:
    """Append rows with equal keys to a CSV file; a new file gets a header."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if not file.exists():
        writer.writeheader()
    writer.writerows(rows)
    write_atomically(file, (file.read_bytes() if file.exists() else b"") + text.getvalue().encode())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).with_suffix(".md").write_text(markdown(json.loads(Path(name).read_text())), encoding="utf-8")
