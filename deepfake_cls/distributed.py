"""One training over several devices: the processes that torchrun started, and how they exchange values.

All processes see the same global batch and the same random numbers; each computes its share. Rank 0 writes and prints.
With one process, every function is a no-op.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from deepfake_cls.errors import InputError

Value = TypeVar("Value")
# A gloo group of all processes. Its collectives run on the CPU and do not wait for a GPU.
_cpu_groups: list[Any] = []


def _environment(name: str, default: int) -> int:
    # Other launchers set variables of the same names; only torchrun sets TORCHELASTIC_RUN_ID.
    return int(os.environ[name]) if "TORCHELASTIC_RUN_ID" in os.environ else default


def world_size() -> int:
    """Number of processes."""
    return _environment("WORLD_SIZE", 1)


def rank() -> int:
    """Index of this process."""
    return _environment("RANK", 0)


def local_rank() -> int:
    """Index of this process among those of its machine, and so of its device."""
    return _environment("LOCAL_RANK", 0)


def local_size() -> int:
    """Number of processes on this machine."""
    return _environment("LOCAL_WORLD_SIZE", 1)


def share(count: int) -> slice:
    """This process's rows of a global batch; shares differ by at most one row and may be empty."""
    smaller, larger_shares = divmod(count, world_size())
    start = rank() * smaller + min(rank(), larger_shares)
    return slice(start, start + smaller + (rank() < larger_shares))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Connect the processes.

    After an error it does not disconnect: torchrun then ends the other processes.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL).
    """
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    timeout = timedelta(days=1)  # rank 0 may have to wait for another job that works on the same run
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timeout)
    _cpu_groups[:] = [dist.new_group(backend="gloo", timeout=timeout)]
    yield
    _cpu_groups.clear()
    dist.destroy_process_group()


def broadcast(value: Value | None) -> Value:
    """Return rank 0's value in every process.

    Raises:
        InputError: If rank 0 has failed.
    """
    if world_size() == 1:
        assert value is not None
        return value
    import torch.distributed as dist

    values = [value]
    try:
        # With gloo, the other ranks notice that rank 0 has ended; with NCCL they would wait forever.
        dist.broadcast_object_list(values, src=0, group=_cpu_groups[0])
    except RuntimeError as error:
        raise InputError("The process of rank 0 has failed; see its message.") from error
    assert values[0] is not None
    return values[0]


def gather(values: dict[int, Value]) -> list[Value]:
    """Return the values of all processes, in the order of their keys, in every process."""
    if world_size() > 1:
        import torch.distributed as dist

        parts: list[dict[int, Value]] = [{} for _ in range(world_size())]
        dist.all_gather_object(parts, values, group=_cpu_groups[0])
        values = {key: value for part in parts for key, value in part.items()}
    return [values[key] for key in sorted(values)]


def all_reduce_max(value: int) -> int:
    """Return the largest value of all processes, in every process."""
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_cpu_groups[0])
    return int(tensor)
