"""What the machine allows: the best rate of matrix products, of memory, and of a network's convolutions alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Recorded = tuple[nn.Module, Tensor, Tensor]  # a module, its input and its output


def best(call: Callable[[], object], repeats: int, wait: Callable[[], object]) -> float:
    """The least seconds of a call, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        wait()
        started = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def matrix_rates(device: str, kinds: list[str], sizes: list[int], repeats: int) -> dict[str, dict[str, float]]:
    """FLOP a second of square matrix products, 2 for each multiplication with its addition.

    Args:
        device: ``cpu`` or ``cuda``.
        kinds: Of ``fp32``, ``bf16`` and ``int8``.
        sizes: Sides of the matrices.
        repeats: The best of so many counts.

    Returns:
        By kind, then by size.
    """
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    rates: dict[str, dict[str, float]] = {}
    for kind in kinds:
        rates[kind] = {}
        for size in sizes:
            left, right = (torch.randint(-100, 100, (size, size), device=device) for _ in range(2))
            if kind == "int8":
                left, right = left.to(torch.int8), right.to(torch.int8).T
                seconds = best(lambda a=left, b=right: torch._int_mm(a, b), repeats, wait)  # type: ignore[misc]
            else:
                dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[kind]
                left, right = left.to(dtype), right.to(dtype)
                seconds = best(lambda a=left, b=right: a @ b, repeats, wait)  # type: ignore[misc]
            rates[kind][str(size)] = 2 * size**3 / seconds
    return rates


def bandwidth(device: str, size: int, repeats: int) -> float:
    """Bytes a second, read and written, of a copy of ``size`` bytes."""
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best(lambda: target.copy_(source), repeats, wait)


def recorded(network: nn.Module, kinds: tuple[type[nn.Module], ...], side: int, bf16: bool) -> list[Recorded]:
    """The network's modules of some kinds, in order, with an input and an output of each for two images.

    Args:
        network: Takes uint8 (B, 3, H, W).
        kinds: Classes of modules.
        side: Of an image, in pixels.
        bf16: Whether the network runs in mixed precision.
    """
    found: list[Recorded] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((module, inputs[0], output))

    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, kinds)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        network(torch.zeros((2, 3, side, side), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return found


def kernels(width: int, batch: int, side: int, repeats: int) -> dict[str, float]:
    """Train the network's operations one by one, each on tensors in memory, with nothing between them.

    Convolutions and batch normalisations run forward and backward; the first convolution's input gets no gradient. Each
    ReLU runs in place and each skip is added, as in the blocks. No training loop that uses torch's kernels can be
    faster, but for what it finds in the CPU's caches.

    Args:
        width: Channels of the stem.
        batch: Images in a batch.
        side: Of an image, in pixels.
        repeats: The best of so many counts.

    Returns:
        ``rate`` in images a second of the convolutions alone, ``all_rate`` with the other operations.
    """
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose
    from deepfake_cls.models.resnet import ResidualBlock, ResidualNet

    bf16 = choose(TrainerConfig(device="cpu")).precision == "bf16-mixed"
    network = ResidualNet(3, 5, width)
    followed_by_relu = {network.bn, *(m.bn1 for m in network.modules() if isinstance(m, ResidualBlock))}

    def tensor_like(example: Tensor) -> Tensor:
        return torch.randn((batch, *example.shape[1:]), dtype=example.dtype).contiguous(memory_format=network.layout)

    def step(module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = module(x)
        y.backward(gradient)
        x.grad = None
        module.zero_grad()

    convolutions = others = 0.0
    for module, before, after in recorded(network, (nn.Conv2d, nn.BatchNorm2d, ResidualBlock), side, bf16):
        x, y, other = tensor_like(before), tensor_like(after), tensor_like(after)
        calls: list[Callable[[], object]] = []
        if isinstance(module, ResidualBlock):
            calls.append(partial(_add, y, other))
        else:
            x.requires_grad_(module is not network.conv)
            calls.append(partial(step, module, x, y))
        if isinstance(module, ResidualBlock) or module in followed_by_relu:
            calls.append(partial(_relu, y, other))
        seconds = sum(best(call, repeats, lambda: None) for call in calls)
        if isinstance(module, nn.Conv2d):
            convolutions += seconds
        else:
            others += seconds
    return {"rate": batch / convolutions, "all_rate": batch / (convolutions + others)}


def _relu(y: Tensor, gradient: Tensor) -> None:
    torch.relu_(y)
    torch.ops.aten.threshold_backward(gradient, y, 0)


def _add(y: Tensor, x: Tensor) -> None:
    y += x  # the skip
    x += y  # the two gradients of the block's input


def job(sizes: list[int], copied: int, repeats: int) -> dict[str, object]:
    """The CPU's limits, in each precision that it has in hardware."""
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose, cpu_has_bf16, has_int8

    hardware = choose(TrainerConfig(device="cpu"))
    kinds = ["fp32"] + ["bf16"] * cpu_has_bf16() + ["int8"] * has_int8("cpu")
    return {
        "device": hardware.name,
        "threads": hardware.threads,
        "precision": hardware.precision,
        "matrix_flop_per_second": matrix_rates("cpu", kinds, sizes, repeats),
        "copy_bytes_per_second": bandwidth("cpu", copied, repeats),
    }
