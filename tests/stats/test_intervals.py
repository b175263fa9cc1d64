from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import deepfake_cls
from deepfake_cls.stats.intervals import critical, summarise, wilson


def test_importing_needs_no_scipy() -> None:
    code = "import sys, deepfake_cls.stats.verdict, deepfake_cls.stats.intervals; sys.exit('scipy' in sys.modules)"
    root = Path(deepfake_cls.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize("df", [1, 2, 9, 1249])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-9])
def test_critical_values_against_scipy(df: int, alpha: float) -> None:
    assert critical(df, alpha) == pytest.approx(stats.t.isf(alpha / 2, df), rel=1e-6)
    assert critical(float("inf"), alpha) == pytest.approx(stats.norm.isf(alpha / 2), rel=1e-6)


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (1, 3), (1179, 1250), (365, 1250)])
def test_wilson_against_scipy(correct: int, count: int) -> None:
    for confidence in (0.9, 0.95, 0.99):
        expected = stats.binomtest(correct, count).proportion_ci(confidence, method="wilson")
        assert wilson(correct, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_summary_against_scipy(confidence: float) -> None:
    values = [0.81, 0.84, 0.8, 0.86]
    summary = summarise(values, confidence)
    oracle = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert summary.seeds == 4
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(stats.tstd(values))
    assert (summary.low, summary.high) == pytest.approx((oracle.low, oracle.high))


def test_one_seed_has_only_a_mean() -> None:
    summary = summarise([0.5])
    assert (summary.seeds, summary.mean, summary.sd, summary.low, summary.high) == (1, 0.5, None, None, None)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_missing_or_infinite_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one|finite"):
        summarise(values)
