"""Random numbers as a function of (seed, purpose, epoch, step), without a global state.

So the same numbers are drawn by a resumed run, by runs with equal seeds, and by processes that share a batch.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Hash a seed and a purpose into a seed in [0, 2⁶³).

    With an offset such as ``seed + epoch``, (seed 0, epoch 1) and (seed 1, epoch 0) would draw the same numbers.

    Args:
        seed: The run's seed.
        purpose: What the random numbers are for, such as ``"order", epoch``.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a new CPU generator for one purpose; see :func:`derive`.

    It is on the CPU even if the network is on a GPU, so that all devices use the same random numbers.
    """
    return torch.Generator().manual_seed(derive(seed, *purpose))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device, through pinned memory where it is a GPU, so that the CPU does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
