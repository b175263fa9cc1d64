"""Simulated coverage of the 95 % intervals of ``deepfake_cls.stats.compare``, of alternatives, and of claims.

Claim: the two-way interval covers 95 to 97 % at 3, 5 and 10 seeds, for any mixture of seed noise and image noise. Each
alternative (t over seeds, images only, percentile bootstrap) undercovers for some noise. Each row counts 2,000
simulated experiments with a known true difference (``tests/stats/simulation.py``); 1,000 for the bootstrap over seeds
and images, which is simulated for two kinds of noise.

The rows of claims simulate two arms and one baseline, with a claimed difference for each arm, as in tables 4 and 5.
Their coverage is the share of experiments in which no claim is excluded (both are true: at least 95 %), or in which the
first claim, wrong by 1, 2 or 3 points, is not excluded (1 minus the power), while the second one is true.

    python -m benchmarks.coverage --output experiments/results/coverage.csv      # about a minute on one core
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from benchmarks.table import append_csv
from deepfake_cls.stats.compare import crossed, difference_folds, mean_squares
from deepfake_cls.stats.diagnostics import bootstrap
from deepfake_cls.stats.intervals import critical, wilson
from tests.stats.simulation import Noise

RUNS = 2000
BATCH = 50
SEED = 0
RESAMPLES = 1000
NOISES = {
    "typical": Noise(1250, gap=0.01),
    "strong seeds": Noise(1250, gap=0.01, seed_sd=0.015),
    "weak seeds": Noise(1250, gap=0.01, seed_sd=0.003),
    "no seed effect": Noise(1250, gap=0.01, seed_sd=0),
    "no image interaction": Noise(1250, gap=0.01, interaction=0),
    "neither": Noise(1250, gap=0.01, seed_sd=0, interaction=0),
    "hard, often discordant": Noise(2500, accuracy=0.75, gap=0.01, seed_sd=0.005, interaction=1.5),
    "easy, seldom discordant": Noise(5000, accuracy=0.93, gap=0.01, seed_sd=0.003, difficulty=6),
}
FOLDS = Noise(1250, gap=0.01)
CLAIM_NOISES = ("typical", "strong seeds", "weak seeds", "neither")
WRONG = (0.01, 0.02, 0.03)

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


def symmetric(estimate: NDArray[np.float64], half: NDArray[np.float64]) -> Interval:
    return estimate - half, estimate + half


def intervals(d: NDArray[np.int8], rng: np.random.Generator) -> dict[str, Interval]:
    """95 % intervals by method, for the differences (count, S, N) of a stack of experiments."""
    seeds, images = d.shape[-2:]
    estimate, half = crossed(d)
    of_seeds, of_images, residual = (square / (seeds * images) for square in mean_squares(d))
    variance = np.maximum(of_seeds + of_images - residual, of_images)  # else df can be close to 0
    df = variance**2 / (of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1))
    rows = d.mean(axis=2)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    low, high = np.quantile(rows @ weights.T, [0.025, 0.975], axis=1)
    return {
        "two-way": symmetric(estimate, half),
        "two-way, Satterthwaite": symmetric(estimate, -stdtrit(df, 0.025) * np.sqrt(variance)),
        "t over seeds": symmetric(estimate, critical(seeds - 1, 0.05) * rows.std(axis=1, ddof=1) / sqrt(seeds)),
        "images alone, normal": symmetric(estimate, critical(np.inf, 0.05) * np.sqrt(of_images)),
        "percentile bootstrap over seeds": (low, high),
    }


def hierarchical(d: NDArray[np.int8]) -> Interval:
    """Bootstrap intervals over seeds and images, for a stack of experiments."""
    low, high = zip(*(bootstrap(experiment, resamples=500) for experiment in d), strict=True)
    return np.array(low), np.array(high)


def folds(d: NDArray[np.int8]) -> Interval:
    """Paired t intervals for a stack of experiments in which each seed has different images."""
    differences = [difference_folds([(fold > 0, fold < 0) for fold in experiment]) for experiment in d]
    return np.array([each.low for each in differences]), np.array([each.high for each in differences])


def measure(name: str, noise: Noise, seeds: int) -> list[dict[str, object]]:
    """Simulate one kind of noise; one row per method."""
    rng = np.random.default_rng([SEED, seeds])
    simulated: dict[str, list[Interval]] = defaultdict(list)
    discordant = []
    for batch in range(RUNS // BATCH):
        if name == "folds":
            d = noise.draw(1, BATCH * seeds, rng)[:, 0].reshape(BATCH, seeds, -1)
            simulated["paired t over folds"].append(folds(d))
        else:
            d = noise.draw(seeds, BATCH, rng)
            for method, interval in intervals(d, rng).items():
                simulated[method].append(interval)
            if name in ("typical", "strong seeds") and batch % 2 == 0:
                simulated["bootstrap over seeds and images"].append(hierarchical(d))
        discordant.append(float((d != 0).mean()))
    rows: list[dict[str, object]] = []
    for method, parts in simulated.items():
        low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
        covered = (low <= noise.gap) & (noise.gap <= high)
        half = float((high - low).mean() / 2)
        rows.append(_row(method, seeds, name, noise, covered, half, float(np.mean(discordant))))
    return rows


def _row(
    method: str, seeds: int, name: str, noise: Noise, covered: NDArray[np.bool_], half: float, discordance: float
) -> dict[str, object]:
    """A row of the CSV."""
    lower, upper = wilson(int(covered.sum()), len(covered))
    figures = {"coverage": covered.mean(), "low": lower, "high": upper, "half_width": half}
    row: dict[str, object] = {"method": method, "seeds": seeds, "noise": name}
    row |= {key: round(float(value), 4) for key, value in figures.items()}
    row |= {"n": len(covered), "images": noise.images, "accuracy": noise.accuracy, "seed_sd": noise.seed_sd}
    return row | {"discordance": round(discordance, 3), "generator_seed": SEED, "numpy": np.__version__}


def excluded(d: NDArray[np.int8], claims: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of two claims are excluded after Holm's correction, for a stack of families.

    Args:
        d: (2, count, S, N), the differences of two arms from one baseline.
        claims: (2,), the claimed differences.

    Returns:
        (2, count)
    """
    estimate, half = crossed(d)
    distance = np.abs(estimate - claims[:, None])
    first = distance > crossed(d, 0.975)[1]  # the smaller p value counts twice, the other once if that one is rejected
    return np.asarray(first | ((distance > half) & first[::-1]))


def measure_claims(name: str, seeds: int, runs: int = RUNS) -> list[dict[str, object]]:
    """Simulate the claims of two arms for one kind of noise; one row for true claims, and one for each wrong one."""
    noise, rng = NOISES[name], np.random.default_rng([SEED, seeds])
    kept: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
    halves, discordant = [], []
    for _ in range(runs // BATCH):
        d = noise.draw_family(2, seeds, BATCH, rng)
        kept["claims, both true"].append(np.asarray(~excluded(d, np.array([noise.gap, noise.gap])).any(axis=0)))
        for wrong in WRONG:
            claims = np.array([noise.gap + wrong, noise.gap])
            kept[f"claim wrong by {100 * wrong:.1f} points"].append(~excluded(d, claims)[0])
        halves.append(float(crossed(d)[1].mean()))
        discordant.append(float((d != 0).mean()))
    return [
        _row(method, seeds, name, noise, np.concatenate(parts), float(np.mean(halves)), float(np.mean(discordant)))
        for method, parts in kept.items()
    ]


def _printed(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    for row in rows:
        print(
            f"{row['noise']:24} S = {row['seeds']:2}  {row['method']:32} {row['coverage']:.3f}  ± {row['half_width']}"
        )
    return rows


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    parser.add_argument("--claims", action="store_true", help="measure the claims only")
    arguments = parser.parse_args()
    output, rows = arguments.output, list[dict[str, object]]()
    if not arguments.claims:
        for name, noise in {**NOISES, "folds": FOLDS}.items():
            for seeds in (3, 5, 10):
                rows += _printed(measure(name, noise, seeds))
    for name in CLAIM_NOISES:
        for seeds in (3, 5):
            rows += _printed(measure_claims(name, seeds))
    if output is not None:
        append_csv(output, rows)


if __name__ == "__main__":
    main()
