"""Does the interval of ``deepfake_cls.stats.compare`` hold the true difference as often as it says?

Claim: 95 % and a little more (to 97 %) at 3, 5 and 10 seeds, whatever part seeds and images have in the noise; the
usual shortcuts (t over seeds, images alone, percentile bootstrap) each fail somewhere. Experiments are drawn of which
the true difference is known (``tests/results/simulation.py``), 2,000 for a row; 1,000 for the bootstrap over seeds and
images, for two kinds of noise.

    python -m benchmarks.coverage --output experiments/results/coverage.csv      # about a minute on one core
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from deepfake_cls.records import write_atomically
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

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


def around(estimate: NDArray[np.float64], half: NDArray[np.float64]) -> Interval:
    return estimate - half, estimate + half


def intervals(d: NDArray[np.int8], rng: np.random.Generator) -> dict[str, Interval]:
    """Intervals at 95 % of a stack of experiments (count, S, N), by method."""
    seeds, images = d.shape[-2:]
    estimate, half = crossed(d)
    of_seeds, of_images, rest = (square / (seeds * images) for square in mean_squares(d))
    variance = np.maximum(of_seeds + of_images - rest, of_images)  # else its degrees of freedom can come close to 0
    df = variance**2 / (of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1))
    rows = d.mean(axis=2)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    low, high = np.quantile(rows @ weights.T, [0.025, 0.975], axis=1)
    return {
        "two-way": around(estimate, half),
        "two-way, Satterthwaite": around(estimate, -stdtrit(df, 0.025) * np.sqrt(variance)),
        "t over seeds": around(estimate, critical(seeds - 1, 0.05) * rows.std(axis=1, ddof=1) / sqrt(seeds)),
        "images alone, normal": around(estimate, critical(np.inf, 0.05) * np.sqrt(of_images)),
        "percentile bootstrap over seeds": (low, high),
    }


def hierarchical(d: NDArray[np.int8]) -> Interval:
    """Diagnostic bootstrap of a stack of experiments."""
    low, high = zip(*(bootstrap(one, resamples=500) for one in d), strict=True)
    return np.array(low), np.array(high)


def folds(d: NDArray[np.int8]) -> Interval:
    """Paired t of a stack of experiments whose seeds have images of their own."""
    found = [difference_folds([(fold > 0, fold < 0) for fold in one]) for one in d]
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def measure(name: str, noise: Noise, seeds: int) -> list[dict[str, object]]:
    """Rows of one kind of noise, one for each method."""
    rng = np.random.default_rng([SEED, seeds])
    found: dict[str, list[Interval]] = defaultdict(list)
    discordant = []
    for batch in range(RUNS // BATCH):
        if name == "folds":
            d = noise.draw(1, BATCH * seeds, rng)[:, 0].reshape(BATCH, seeds, -1)
            found["paired t over folds"].append(folds(d))
        else:
            d = noise.draw(seeds, BATCH, rng)
            for method, interval in intervals(d, rng).items():
                found[method].append(interval)
            if name in ("typical", "strong seeds") and batch % 2 == 0:
                found["bootstrap over seeds and images"].append(hierarchical(d))
        discordant.append(float((d != 0).mean()))
    rows: list[dict[str, object]] = []
    for method, parts in found.items():
        low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
        inside = int(((low <= noise.gap) & (noise.gap <= high)).sum())
        least, most = wilson(inside, len(low))
        figures = {"coverage": inside / len(low), "low": least, "high": most, "half_width": (high - low).mean() / 2}
        row: dict[str, object] = {"method": method, "seeds": seeds, "noise": name}
        row |= {key: round(float(value), 4) for key, value in figures.items()}
        row |= {"n": len(low), "images": noise.images, "accuracy": noise.accuracy, "seed_sd": noise.seed_sd}
        row |= {"discordance": round(float(np.mean(discordant)), 3), "generator_seed": SEED, "numpy": np.__version__}
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    output = parser.parse_args().output
    rows = []
    for name, noise in {**NOISES, "folds": FOLDS}.items():
        for seeds in (3, 5, 10):
            rows += (measured := measure(name, noise, seeds))
            for row in measured:
                print(f"{name:24} S = {seeds:2}  {row['method']:32} {row['coverage']:.3f}  ± {row['half_width']}")
    if output is not None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        if not output.exists():
            writer.writeheader()
        writer.writerows(rows)
        write_atomically(output, (output.read_bytes() if output.exists() else b"") + text.getvalue().encode())


if __name__ == "__main__":
    main()
