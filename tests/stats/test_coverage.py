"""The claims of ``benchmarks.coverage``, with fewer experiments and a fixed seed."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks.coverage import NOISES, excluded, measure_claims
from deepfake_cls.stats.compare import difference
from deepfake_cls.stats.verdict import Claim, holm, judge_claim
from tests.conftest import ROOT

COVERAGE = ROOT / "experiments" / "results" / "coverage.csv"


def rates(name: str, seeds: int, runs: int) -> dict[str, float]:
    return {str(row["method"]): float(str(row["coverage"])) for row in measure_claims(name, seeds, runs)}


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("name", ["typical", "strong seeds"])
def test_true_claims_are_seldom_excluded(name: str, seeds: int) -> None:
    # The family-wise error rate is at most 5 %; 600 experiments have a standard error of 0.9 points.
    assert rates(name, seeds, 600)["claims, both true"] >= 0.935


def test_wrong_claims_are_excluded_more_often_the_further_they_are_off() -> None:
    three, five = (rates("weak seeds", seeds, 600) for seeds in (3, 5))
    off = [f"claim wrong by {points} points" for points in ("1.0", "2.0", "3.0")]
    for one in (three, five):
        assert sorted((one[name] for name in off), reverse=True) == [one[name] for name in off]
    assert three[off[2]] < 0.5
    assert five[off[2]] < 0.05
    assert all(five[name] < three[name] for name in off)


def test_the_simulation_decides_as_the_report_does() -> None:
    noise, seeds = NOISES["weak seeds"], 4
    d = noise.draw_family(2, seeds, 60, np.random.default_rng(3))
    claims = np.array([noise.gap + 0.014, noise.gap - 0.012])
    simulated = excluded(d, claims)
    assert 0.1 < simulated.mean() < 0.9
    for index in range(d.shape[1]):
        differences = [difference(arm[index] > 0, arm[index] < 0) for arm in d]
        adjusted = holm([one.p_of(claim) for one, claim in zip(differences, claims, strict=True)])
        judged = [judge_claim(one, Claim(c, c), p) for one, c, p in zip(differences, claims, adjusted, strict=True)]
        assert [one.word == "excluded" for one in judged] == simulated[:, index].tolist()


def test_the_committed_rows_have_the_stated_rates() -> None:
    with COVERAGE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"].startswith("claim")]
    assert len(rows) == 4 * 2 * 4
    assert all(float(row["coverage"]) >= 0.95 for row in rows if "true" in row["method"])
