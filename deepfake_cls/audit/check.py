"""The result of one check, and the values that all checks need as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.figure import Figure

Verdict = Literal["ok", "warn", "fail"]
MAX_EXAMPLES = 20
MAX_PICTURES = 4  # groups of images on the page


@dataclass(frozen=True)
class Check:
    """What a check has found.

    Attributes:
        name: Its name in ``audit.json``.
        verdict: ``fail``: results on this data would mislead; ``warn``: they may; ``ok``.
        sentence: The finding.
        numbers: Values for programs.
        advice: What to do; empty if there is nothing to do.
        examples: At most 20 images or groups of images, with their files.
        columns: Headers of a table on the page.
        rows: Its cells.
        figures: Figures on the page, each with its caption.
        pictures: Rows of the images that the page shows, for each group of images.
    """

    name: str
    verdict: Verdict
    sentence: str
    numbers: dict[str, Any]
    advice: str = ""
    examples: Sequence[dict[str, Any]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[tuple[Figure, str]] = ()
    pictures: Sequence[Sequence[int]] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """The entry of ``audit.json``."""
        return {name: getattr(self, name) for name in ("name", "verdict", "numbers", "examples", "advice")}


def percent(share: float) -> str:
    """``34.2 %``."""
    return f"{100 * share:.1f} %"


def counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def first_counts(found: dict[str, int], limit: int = MAX_EXAMPLES) -> dict[str, int]:
    """The most frequent values, and the sum of the ``others``."""
    others = sum([*found.values()][limit:])
    return dict([*found.items()][:limit]) | ({"others": others} if others else {})


def shares_text(values: Iterable[str], limit: int = 4) -> str:
    """``JPEG``, or ``JPEG 90.0 %, PNG 10.0 %``: the most frequent values."""
    found = counts(values)
    total = sum(found.values())
    texts = [f"{value} {percent(count / total)}" for value, count in found.items()]
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(texts[:limit]) + (f", {len(texts) - limit} more" if len(texts) > limit else "")
