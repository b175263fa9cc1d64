"""Simulated experiments with a known true difference, many at once; ``benchmarks.coverage`` uses them too."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()


@dataclass(frozen=True)
class Noise:
    """Noise model of two arms: a prediction is correct where its latent score is positive.

    score[arm, s, i] = mean[arm] + difficulty[i] + interaction[arm, i] + seed[arm, s] + noise[arm, s, i], all normal,
    the noise with variance 1. So the true accuracy is known: Phi(mean / standard deviation of the other terms).

    Attributes:
        images: N.
        accuracy: Of arm B.
        gap: True difference, A − B; fraction.
        seed_sd: Approximate standard deviation of an arm's accuracy between seeds; fraction.
        difficulty: Standard deviation of an image's effect on both arms; a larger one gives fewer disagreements.
        interaction: Standard deviation of an image's effect on one arm only.
    """

    images: int
    accuracy: float = 0.85
    gap: float = 0.0
    seed_sd: float = 0.008
    difficulty: float = 4.0
    interaction: float = 1.0

    def draw(self, seeds: int, count: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """Differences in correctness, int8 (count, seeds, images)."""
        family: NDArray[np.int8] = self.draw_family(1, seeds, count, rng)[0]
        return family

    def draw_family(self, size: int, seeds: int, count: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """Differences of several arms from one baseline, int8 (size, count, seeds, images); each differs by ``gap``."""
        accuracies = [self.accuracy + self.gap] * size + [self.accuracy]
        arms = [self._arm(accuracy, seeds, count) for accuracy in accuracies]
        shared = self.difficulty * rng.standard_normal((count, 1, self.images), dtype=np.float32)
        *others, baseline = (arm(shared, rng).astype(np.int8) for arm in arms)
        return np.stack([other - baseline for other in others])

    def _arm(self, accuracy: float, seeds: int, count: int) -> _Arm:
        sd = sqrt(1 + self.difficulty**2 + self.interaction**2)
        centre = NORMAL.inv_cdf(accuracy)
        effect = self.seed_sd / NORMAL.pdf(centre) * sd
        return _Arm(centre * sqrt(sd**2 + effect**2), effect, self.interaction, (count, seeds, self.images))


@dataclass(frozen=True)
class _Arm:
    mean: float
    effect: float
    interaction: float
    shape: tuple[int, int, int]

    def __call__(self, shared: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.bool_]:
        count, seeds, images = self.shape
        by_image = self.interaction * rng.standard_normal((count, 1, images), dtype=np.float32)
        by_seed = self.effect * rng.standard_normal((count, seeds, 1), dtype=np.float32)
        noise = rng.standard_normal(self.shape, dtype=np.float32)
        correct: NDArray[np.bool_] = noise + shared + by_image + by_seed > -self.mean
        return correct
