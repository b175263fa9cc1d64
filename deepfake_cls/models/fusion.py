"""Late fusion of a network's probabilities with the logits of image statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports its submodules on first use
from numpy.typing import NDArray

_SMALLEST = 1e-30  # probabilities may be rounded to 0


@dataclass(frozen=True)
class Fusion:
    """Weight and temperature of ``log p = log p_network + weight · log softmax(logits / temperature)``.

    Attributes:
        weight: 0 to 5.
        temperature: Of the logits of the statistics.
        images: uint64 (N,), digests of the images that both were fitted on.
    """

    weight: float
    temperature: float
    images: NDArray[np.uint64]

    def probs(self, network: NDArray[Any], logits: NDArray[Any]) -> NDArray[np.float32]:
        """Combine probabilities (N, C) of a network with logits (N, C) of image statistics: float32 (N, C)."""
        return _fused(network, logits, self.weight, self.temperature).astype(np.float32)


def fit_fusion(
    network: NDArray[Any], logits: NDArray[Any], labels: NDArray[np.int64], images: NDArray[np.uint64]
) -> Fusion:
    """The weight and temperature with the smallest negative log-likelihood.

    Args:
        network: Probabilities of the network, (N, C), on images that it was not trained on.
        logits: Of the image statistics, (N, C), not trained on these images either.
        labels: int64 (N,).
        images: uint64 (N,), digests of these images.
    """

    def loss(parameters: NDArray[np.float64]) -> float:
        probs = _fused(network, logits, float(parameters[0]), float(np.exp(parameters[1])))
        return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], _SMALLEST)).mean())

    found = scipy.optimize.minimize(loss, [0.5, 0.0], method="L-BFGS-B", bounds=[(0.0, 5.0), (-3.0, 3.0)])
    return Fusion(float(found.x[0]), float(np.exp(found.x[1])), images)


def _fused(network: NDArray[Any], logits: NDArray[Any], weight: float, temperature: float) -> NDArray[np.float64]:
    logs = np.log(np.maximum(network.astype(np.float64), _SMALLEST))
    logs = logs + weight * scipy.special.log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return np.asarray(scipy.special.softmax(logs, axis=1))
