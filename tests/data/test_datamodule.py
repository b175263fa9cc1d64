"""Where batches come from: a device, or a memory map larger than memory may be."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store

UNLIMITED = 1 << 60


def split(images: Any) -> SplitImages:
    count, *size, channels = images.shape
    store = Store(images, "f", channels == 4, np.arange(count), (), (size[0], size[1]))
    return SplitImages(tuple(map(str, range(count))), np.arange(count) % 3, store)


def noise(count: int = 2_100, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 6, channels), dtype=np.uint8)


@pytest.mark.parametrize("stored", [3, 4])
@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_images_held_on_the_device_give_the_batches_of_the_store(stored: int, channels: str) -> None:
    images = split(noise(channels=stored))  # more than one block of the copy
    streamed, resident = Pixels(images, channels), Pixels(images, channels)
    resident.make_resident(UNLIMITED)
    assert resident._resident is not None
    for seed in (None, 3):
        pairs = zip(Batches(streamed, 64, seed), Batches(resident, 64, seed), strict=True)
        assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_what_does_not_fit_the_device_is_streamed() -> None:
    images = split(noise(10))
    pixels = Pixels(images, "RGBA")
    pixels.make_resident(10 * 4 * 6 * 4 - 1)
    assert pixels._resident is None
    assert torch.equal(pixels.images(np.arange(2))[..., :3], torch.from_numpy(images.store.images[:2]))
    pixels.make_resident(10 * 4 * 6 * 4)
    assert pixels._resident is not None


def in_memory(mapped: mmap.mmap, size: int) -> list[bool]:
    """Which pages of a map the system holds, by mincore(2)."""
    pages = -(-size // mmap.PAGESIZE)
    held = (ctypes.c_ubyte * pages)()
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    found = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), held)
    assert found == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in held]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux which pages it holds")
def test_the_rows_of_the_next_batch_are_read_ahead(tmp_path: Path) -> None:
    shape = (600, 64, 64, 3)  # three pages an image
    file = tmp_path / "images.u8"
    file.write_bytes(np.random.default_rng(0).bytes(int(np.prod(shape))))
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    images = np.memmap(file, np.uint8, "r", shape=shape)
    mapped: Any = vars(images)["_mmap"]
    size = int(np.prod(shape))
    if any(in_memory(mapped, size)):
        pytest.skip("this file system keeps files in memory")
    Pixels(split(images), "RGB").prefetch(np.array([7, 300, 599]))
    wanted = [page for row in (7, 300, 599) for page in range(3 * row, 3 * row + 3)]
    deadline = time.monotonic() + 300
    while not all(in_memory(mapped, size)[page] for page in wanted):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(in_memory(mapped, size)) < 300  # of 1,800: the system may round up, not read it all


TRAINING = """
import json, resource, sys
from dataclasses import asdict
from pathlib import Path
import lightning as L, numpy as np, torch
from deepfake_cls.config import RecipeConfig
from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store
from deepfake_cls.training.module import Classifier

file, (count, room, steps) = Path(sys.argv[1]), map(int, sys.argv[2:5])
torch.set_num_threads(1)
images = np.memmap(file, np.uint8, "r", shape=(count, 64, 64, 3))
store = Store(images, "f", False, np.arange(count), (), (64, 64))
split = SplitImages(tuple(map(str, range(count))), np.arange(count) % 3, store)
batches = Batches(Pixels(split, "RGB"), 16, seed=0)
losses = []

class Watch(L.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        losses.append(float(module.last_loss))
        if index == 2 and room:  # warm: what a step takes is taken
            data = [int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData")][0]
            resource.setrlimit(resource.RLIMIT_DATA, (data + room, data + room))

augment = {"flip": {"p": 0.5}, "rotation": {"degrees": 10.0}}
model = Classifier(["a", "b", "c"], [64, 64], "RGB", {"name": "resnet", "args": {}}, 8, 0.0, 4e-3, 1, steps, 0, augment,
    asdict(RecipeConfig()))
trainer = L.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=steps, logger=False, callbacks=[Watch()],
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(model, batches)
if "--greedy" in sys.argv:
    np.array(images)  # what a program that loads all its data does
print(json.dumps(losses))
"""


def trained(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAINING, *map(str, words)], capture_output=True, text=True, timeout=300
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a cap on private memory (RLIMIT_DATA)")
def test_a_store_larger_than_the_memory_it_may_take_trains_as_it_does_in_memory(tmp_path: Path) -> None:
    count, size = 20_000, 64 * 64 * 3  # 246 MB
    rng = np.random.default_rng(0)
    file = tmp_path / "images.u8"
    with file.open("wb") as opened:
        for start in range(0, count, 1_000):
            block = rng.integers(0, 200, (1_000, 64, 64, 3), dtype=np.uint8)
            block[np.arange(1_000), :, :, np.arange(start, start + 1_000) % 3] += 55  # a class has a colour
            opened.write(block.tobytes())
    cap = count * size // 2
    capped, free = trained(file, count, cap, 30), trained(file, count, 0, 30)
    assert capped.returncode == 0, capped.stderr[-2000:]
    losses = json.loads(capped.stdout.splitlines()[-1])
    assert losses == json.loads(free.stdout.splitlines()[-1])
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    greedy = trained(file, count, cap, 4, "--greedy")  # the cap is one
    assert greedy.returncode != 0
    assert "MemoryError" in greedy.stderr
