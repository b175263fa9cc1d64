"""Sizes and counts of the comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.samples import Source


@dataclass(frozen=True)
class Plan:
    """Sizes and counts; the defaults are meant for a quarter of an hour on two quiet cores.

    ``skip`` and ``steps`` are always a pair: steps that do not count, and steps in all. ``seconds`` are what the
    comparisons may take before they make fewer rounds (:func:`measure.alternate`).
    """

    embedded: Source = field(default_factory=Source)
    repeats: int = 3
    batch: int = 64
    small: tuple[int, int, int] = (16, 2, 16)  # width, skip, steps
    small_seconds: float = 215
    reference: tuple[int, int, int] = (64, 1, 3)
    reference_repeats: int = 2
    reference_seconds: float = 225
    pngs: int = 2500  # of a split, at most: an epoch of the plain recipe, in which its workers start but once
    loaded: tuple[int, int] = (4, 36)
    load_seconds: float = 52
    evaluated: int = 4  # of ours, four times as large as training batches; the first does not count
    evaluate_seconds: float = 85
    knn: tuple[int, int] = (1250, 11_250)  # queries and references; random pixels where no data is given
    knn_shape: tuple[int, int, int] = (100, 100, 3)
    knn_seconds: float = 110
    oracle: int = 8
    line: tuple[int, ...] = (12_500, 25_000, 50_000, 200_000)
    line_queries: int = 256
    start_seconds: float = 60
    warm: bool = True
    matrices: tuple[int, ...] = (1024, 2048, 4096)
    copied: int = 1 << 28
    drawn: int = 1024


QUICK = Plan(
    embedded=Source(train=40, validation=20, side=32),
    repeats=1,
    batch=8,
    small=(8, 1, 3),
    reference=(8, 1, 2),
    reference_repeats=1,
    pngs=40,
    loaded=(1, 4),
    evaluated=2,
    knn=(20, 200),
    knn_shape=(10, 10, 3),
    oracle=2,
    line=(400,),
    line_queries=4,
    warm=False,
    matrices=(64, 128),
    copied=1 << 16,
    drawn=10,
)
