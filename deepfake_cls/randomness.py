"""Every random draw as a function of (seed, purpose, epoch, step).

Nothing here has a state of its own, so a run that is stopped and resumed, two arms with the same seed, and a
batch that is split over devices all see the same draws.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Hash a seed and a purpose into a seed of 63 bits.

    A hash, and not an offset such as ``seed + epoch``, so that (seed 0, epoch 1) and (seed 1, epoch 0) have
    nothing in common.

    Args:
        seed: The run's seed.
        purpose: What the draw is for, such as ``"order", epoch``.

    Returns:
        A number in [0, 2⁶³).
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A fresh CPU generator for one purpose; see :func:`derive`.

    Draws are made on the CPU also where the network runs on a GPU: they are a few numbers for each image, and
    they are then the same on every device.
    """
    return torch.Generator().manual_seed(derive(seed, *purpose))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device; on a GPU the CPU does not wait for the copy, since it is from pinned memory."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
