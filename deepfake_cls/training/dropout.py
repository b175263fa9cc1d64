"""Dropout whose masks follow from the run's seed, in any network that uses ``nn.Dropout``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepfake_cls.randomness import to_device


class KeyedDropout:
    """Hooks that replace the output of each ``nn.Dropout`` of a network in training by one with a drawn mask.

    Masks are drawn for the global batch, in the order in which the network calls its layers, so that they do not
    depend on how many processes share the batch. A layer whose rows are no images draws for itself.

    Args:
        network: The network; its parameters and their names stay as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        self._draws: torch.Generator | None = None
        self._count, self._own = 0, slice(0)
        for module in network.modules():
            if type(module) is nn.Dropout:
                module.register_forward_hook(self._replace)

    def begin(self, draws: torch.Generator, count: int, own: slice) -> None:
        """Start a step.

        Args:
            draws: Of this step.
            count: Images in the global batch.
            own: Those of this process.
        """
        self._draws, self._count, self._own = draws, count, own

    def _replace(self, module: nn.Dropout, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if not module.training or self._draws is None or module.p == 0:
            return output
        if len(inputs[0]) != len(range(self._count)[self._own]):  # rows are no images, such as those of patches
            return output
        dropped: Tensor = self._dropped(inputs[0], module.p)
        return dropped

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _dropped(self, x: Tensor, p: float) -> Tensor:
        shape = (self._count, *x.shape[1:])
        keep = torch.rand(shape, generator=self._draws)[self._own] >= p
        return x * (to_device(keep, x.device).to(x.dtype) / (1.0 - p))
