"""Dropout masks that follow from the run's seed, in any network with ``nn.Dropout``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepfake_cls.randomness import to_device


class KeyedDropout:
    """Forward hooks that replace the mask of each ``nn.Dropout`` of a network.

    Masks are drawn for the global batch, in the order in which the network calls its layers, so that they do not
    depend on the number of processes. A layer whose rows are not images keeps its own mask. Names of parameters do not
    change.
    """

    def __init__(self, network: nn.Module) -> None:
        self._rng: torch.Generator | None = None
        self._count, self._share = 0, slice(0)
        for module in network.modules():
            if type(module) is nn.Dropout:
                module.register_forward_hook(self._replace)

    def begin(self, rng: torch.Generator, count: int, share: slice) -> None:
        """Start a step with its generator, the number of images in the global batch, and the rows of this process."""
        self._rng, self._count, self._share = rng, count, share

    def _replace(self, module: nn.Dropout, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if not module.training or self._rng is None or module.p == 0:
            return output
        if len(inputs[0]) != len(range(self._count)[self._share]):  # rows are not images but, for example, patches
            return output
        dropped: Tensor = self._drop(inputs[0], module.p)
        return dropped

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _drop(self, x: Tensor, p: float) -> Tensor:
        mask = torch.rand((self._count, *x.shape[1:]), generator=self._rng)[self._share] >= p
        return x * (to_device(mask, x.device).to(x.dtype) / (1.0 - p))
