"""One job over many devices: the processes that torchrun started, and what each of them does.

All processes see the same global batch and the same draws; each takes its share of the arithmetic. Rank 0 alone
writes and prints. In a job of one process every function here is the obvious one of nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from deepfake_cls.errors import InputError

Value = TypeVar("Value")
# The processes, joined by their hosts: what is asked there does not wait for work that a GPU still has queued.
_hosts: list[Any] = []


def world_size() -> int:
    """How many processes share this job."""
    return _told("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is; 0 writes."""
    return _told("RANK", 0)


def local_rank() -> int:
    """Which of the processes on this machine this is, and so which device it takes."""
    return _told("LOCAL_RANK", 0)


def local_size() -> int:
    """How many of them are on this machine."""
    return _told("LOCAL_WORLD_SIZE", 1)


def _told(name: str, alone: int) -> int:
    # Other launchers leave variables of the same names about; this one is torchrun's alone.
    return int(os.environ[name]) if "TORCHELASTIC_RUN_ID" in os.environ else alone


def share(count: int) -> slice:
    """This process's images of a global batch: equal shares, the first ones larger by one, the last perhaps empty."""
    start, more = divmod(count, world_size())
    first = rank() * start + min(rank(), more)
    return slice(first, first + start + (rank() < more))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Connect the processes of this job.

    A process that fails leaves without a word to the others: torchrun ends them.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (NCCL).
    """
    if world_size() == 1:
        yield
        return
    import torch.distributed as dist

    _hosts.clear()
    # A long wait is no fault: rank 0 may have to wait for another process that is at work on the same run.
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(days=1))
    _hosts.append(dist.new_group(backend="gloo", timeout=timedelta(days=1)))
    yield
    _hosts.clear()
    dist.destroy_process_group()


def broadcast(value: Value | None) -> Value:
    """The value that rank 0 gives, in every process.

    Raises:
        InputError: If rank 0 has failed, and said why.
    """
    if world_size() == 1:
        assert value is not None
        return value
    import torch.distributed as dist

    box = [value]
    try:
        # With gloo, the other ranks notice that rank 0 has ended; with NCCL they would wait for ever.
        dist.broadcast_object_list(box, src=0, group=_hosts[-1])
    except RuntimeError as error:
        raise InputError("The process of rank 0 has failed; its message says why.") from error
    assert box[0] is not None
    return box[0]


def gather(found: dict[int, Value]) -> list[Value]:
    """What all processes have found, in the order of the keys."""
    if world_size() > 1:
        import torch.distributed as dist

        parts: list[dict[int, Value]] = [{} for _ in range(world_size())]
        dist.all_gather_object(parts, found, group=_hosts[-1])
        found = {key: value for part in parts for key, value in part.items()}
    return [found[key] for key in sorted(found)]


def all_reduce_max(value: int) -> int:
    """The largest of the values that the processes give."""
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_hosts[-1])
    return int(tensor)
