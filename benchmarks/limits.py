"""Limits of the hardware: the rate of matrix products, and the time of a network's kernels without anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Recorded = tuple[nn.Module, Tensor, Tensor]  # a module, its input and its output


def best(call: Callable[[], object], repeats: int, wait: Callable[[], object] = lambda: None) -> float:
    """The minimum time of a call in seconds, after one warm-up call; ``wait`` waits for the device."""
    seconds = []
    for _ in range(repeats + 1):
        wait()
        started = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def machine(sizes: list[int], repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Describe the device and measure square matrix products in each precision that it has in hardware.

    Args:
        sizes: Sides of the matrices.
        repeats: Repetitions; the best one counts.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``device``, ``threads``, ``precision`` and ``matrix_flop_per_second``, by precision and by size. A
        multiplication and its addition count as 2.
    """
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose, has_int8

    hardware = choose(TrainerConfig(device=device))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    dtypes = {"fp32": torch.float32}
    if hardware.precision == "bf16-mixed":
        dtypes["bf16"] = torch.bfloat16
    if has_int8(device):
        dtypes["int8"] = torch.int8
    rates: dict[str, dict[str, float]] = {name: {} for name in dtypes}
    for name, dtype in dtypes.items():
        for size in sizes:
            a, b = (torch.randint(-100, 100, (size, size), device=device).to(dtype) for _ in range(2))
            call = partial(torch._int_mm, a, b.T) if name == "int8" else partial(torch.mm, a, b)
            rates[name][str(size)] = 2 * size**3 / best(call, repeats, wait)
    return {
        "device": hardware.name,
        "threads": hardware.threads,
        "precision": hardware.precision,
        "matrix_flop_per_second": rates,
    }


def recorded(network: nn.Module, kinds: tuple[type[nn.Module], ...], side: int, bf16: bool) -> list[Recorded]:
    """The network's modules of some classes, in order, each with an input and an output for two images.

    Args:
        network: Takes uint8 (B, 3, H, W).
        kinds: Classes of modules.
        side: Side of an image, pixels.
        bf16: Whether the network runs in mixed precision.
    """
    calls: list[Recorded] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(record) for module in network.modules() if isinstance(module, kinds)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network(torch.zeros((2, 3, side, side), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return calls


def kernels(width: int, batch: int, side: int, repeats: int) -> dict[str, float]:
    """Time the kernels of a training step one by one on the CPU, each on tensors in memory.

    Convolutions and batch normalisations run forward and backward; the first convolution's input gets no gradient. Each
    ReLU runs in place and each skip is added, as in the blocks. A training loop on torch's kernels cannot be faster,
    apart from data that it finds in the CPU's caches.

    Args:
        width: Channels of the stem.
        batch: Images per batch.
        side: Side of an image, pixels.
        repeats: Repetitions; the best one counts.

    Returns:
        Images per second: ``rate`` of the convolutions only, ``all_rate`` of all kernels.
    """
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose
    from deepfake_cls.models.resnet import ResidualBlock, ResidualNet

    bf16 = choose(TrainerConfig(device="cpu")).precision == "bf16-mixed"
    network = ResidualNet(3, 5, width)
    followed_by_relu = {network.bn, *(m.bn1 for m in network.modules() if isinstance(m, ResidualBlock))}

    def tensor_like(example: Tensor) -> Tensor:
        return torch.randn((batch, *example.shape[1:]), dtype=example.dtype).contiguous(memory_format=network.layout)

    seconds = {"convolutions": 0.0, "others": 0.0}
    for module, before, after in recorded(network, (nn.Conv2d, nn.BatchNorm2d, ResidualBlock), side, bf16):
        x, y, other = tensor_like(before), tensor_like(after), tensor_like(after)
        calls: list[Callable[[], object]] = []
        if isinstance(module, ResidualBlock):
            calls.append(partial(_add, y, other))
        else:
            x.requires_grad_(module is not network.conv)
            calls.append(partial(_train, module, x, y, bf16))
        if isinstance(module, ResidualBlock) or module in followed_by_relu:
            calls.append(partial(_relu, y, other))
        kind = "convolutions" if isinstance(module, nn.Conv2d) else "others"
        seconds[kind] += sum(best(call, repeats) for call in calls)
    return {"rate": batch / seconds["convolutions"], "all_rate": batch / sum(seconds.values())}


def _train(module: nn.Module, x: Tensor, gradient: Tensor, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = module(x)
    y.backward(gradient)
    x.grad = None
    module.zero_grad()


def _relu(y: Tensor, gradient: Tensor) -> None:
    torch.relu_(y)
    torch.ops.aten.threshold_backward(gradient, y, 0)


def _add(y: Tensor, x: Tensor) -> None:
    y += x  # the skip
    x += y  # the two gradients of the block's input
