"""Measurements in, one table out: Markdown for the README, rich for the terminal, plain values for JSON."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

COLUMNS = ("what", "ours", "peer", "ratio", "target", "share of the limit")


@dataclass(frozen=True)
class Row:
    """One comparison, or one figure of ours alone.

    Attributes:
        what: What was measured, with its unit.
        ours: One figure for each repetition.
        peer: The other side's.
        peer_name: Who that is.
        more: Whether more is better; the ratio is how many times better ours is.
        target: What was aimed for, in words; empty where nothing was.
        met: Whether it was reached.
        limit: What the hardware allows, in the unit of ``ours``; None where that is not known.
        note: What else belongs to it.
    """

    what: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    peer_name: str = ""
    more: bool = True
    target: str = ""
    met: bool | None = None
    limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, by medians; None without a peer."""
        if not self.peer:
            return None
        return better(self.ours, self.peer, self.more)

    @property
    def share(self) -> float | None:
        """The share of the limit that ours reaches, by the median."""
        return None if self.limit is None else better(self.ours, [self.limit], self.more)

    def cells(self) -> list[str]:
        """The row as text, one for each of the columns."""
        peer = f"{spread(self.peer)} ({self.peer_name})" if self.peer else ""
        ratio = "" if self.ratio is None else f"{number(self.ratio)}×"
        target = f"{self.target}: {'met' if self.met else 'not met'}" if self.target else ""
        share = "" if self.share is None else f"{100 * self.share:.0f} %"
        what = f"{self.what}; {self.note}" if self.note else self.what
        return [what, spread(self.ours), peer, ratio, target, share]

    def plain(self) -> dict[str, Any]:
        """The row with what follows from it."""
        return {**asdict(self), "ratio": self.ratio, "share": self.share}


def better(ours: list[float], peer: list[float], more: bool = True) -> float:
    """How many times better ours is than the peer, by medians."""
    first, second = statistics.median(ours), statistics.median(peer)
    return first / second if more else second / first


def spread(values: list[float]) -> str:
    """Median, and least to most where there are several."""
    middle = number(statistics.median(values))
    return f"{middle} ({number(min(values))} to {number(max(values))})" if len(values) > 1 else middle


def number(value: float) -> str:
    """Three digits, and all of those before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def markdown(rows: list[Row]) -> str:
    """The table in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def terminal(rows: list[Row]) -> Table:
    """The table for a terminal."""
    table = Table(show_lines=True)
    for name in COLUMNS:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.cells())
    return table
