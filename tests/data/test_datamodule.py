"""Batches from the device, and from a memory map that is larger than the memory."""

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
    count = len(images)
    store = Store(images, "f", np.arange(count), ())
    return SplitImages(tuple(map(str, range(count))), np.arange(count) % 3, store)


def noise(count: int = 2_100, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 6, channels), dtype=np.uint8)


@pytest.mark.parametrize("stored", [3, 4])
@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_batches_from_the_device_equal_batches_from_the_store(stored: int, channels: str) -> None:
    images = split(noise(channels=stored))  # they are copied in several blocks
    streamed, resident = Pixels(images, channels), Pixels(images, channels)
    resident.make_resident(UNLIMITED)
    assert resident._resident is not None
    for seed in (None, 3):
        pairs = zip(Batches(streamed, 64, seed), Batches(resident, 64, seed), strict=True)
        assert all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


@pytest.mark.parametrize("missing", [0, 1])
def test_images_are_copied_to_a_gpu_if_they_fit_in_a_quarter_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    queries: list[torch.device] = []

    def mem_get_info(device: torch.device) -> tuple[int, int]:
        queries.append(device)
        return 4 * (10 * 4 * 6 * 4 - missing), 0

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    images = split(noise(10))
    pixels = Pixels(images, "RGBA")
    pixels._try_resident = True  # as on a GPU
    for _ in range(2):
        assert torch.equal(pixels.images(np.arange(2))[..., :3], torch.from_numpy(images.store.images[:2]))
    assert (pixels._resident is None) == bool(missing)
    assert len(queries) == 1


def pages_in_memory(mapped: mmap.mmap, size: int) -> list[bool]:
    """Ask the system which pages of a memory map are in memory, by mincore(2)."""
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    status = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages)
    assert status == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in pages]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mincore(2) of Linux")
def test_the_rows_of_the_next_batch_are_read_ahead(tmp_path: Path) -> None:
    shape = (600, 64, 64, 3)  # three pages for each image
    size = int(np.prod(shape))
    file = tmp_path / "images.u8"
    file.write_bytes(np.random.default_rng(0).bytes(size))
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    images = np.memmap(file, np.uint8, "r", shape=shape)
    mapped: Any = images.base
    if any(pages_in_memory(mapped, size)):
        pytest.skip("this file system keeps files in memory")
    Pixels(split(images), "RGB").prefetch(np.array([7, 300, 599]))
    expected = [page for row in (7, 300, 599) for page in range(3 * row, 3 * row + 3)]
    deadline = time.monotonic() + 300
    while not all(pages_in_memory(mapped, size)[page] for page in expected):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(pages_in_memory(mapped, size)) < 300  # of 1,800: the system may read more, but not the complete file


# Trains without and then with a cap on private memory, and loads all images at the end, which the cap must not allow.
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

file, (count, cap, steps) = Path(sys.argv[1]), map(int, sys.argv[2:])
torch.set_num_threads(1)
images = np.memmap(file, np.uint8, "r", shape=(count, 64, 64, 3))
split = SplitImages(tuple(map(str, range(count))), np.arange(count) % 3, Store(images, "f", np.arange(count), ()))
augment = {"flip": {"p": 0.5}, "rotation": {"degrees": 10.0}}

class Watch(L.Callback):
    def __init__(self, cap):
        self.cap, self.losses = cap, []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.losses.append(float(module.last_loss))
        if index == 2 and self.cap:  # what a step allocates is allocated
            data = [int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData")][0]
            resource.setrlimit(resource.RLIMIT_DATA, (data + self.cap, data + self.cap))

def train(cap):
    watch = Watch(cap)
    model = Classifier(["a", "b", "c"], [64, 64], "RGB", {"name": "resnet", "args": {}}, 8, 0.0, 4e-3, 1, steps, 0,
        augment, asdict(RecipeConfig()))
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=steps, logger=False, callbacks=[watch],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, Batches(Pixels(split, "RGB"), 16, seed=0))
    return watch.losses

free, capped = train(0), train(cap)
try:
    np.array(images)
    fits = True
except MemoryError:
    fits = False
print(json.dumps([free, capped, fits]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a cap on private memory (RLIMIT_DATA)")
def test_training_from_a_store_larger_than_the_memory_gives_the_same_losses(tmp_path: Path) -> None:
    count, size = 8_000, 64 * 64 * 3  # 98 MB
    rng = np.random.default_rng(0)
    file = tmp_path / "images.u8"
    with file.open("wb") as opened:
        for start in range(0, count, 1_000):
            block = rng.integers(0, 200, (1_000, 64, 64, 3), dtype=np.uint8)
            block[np.arange(1_000), :, :, np.arange(start, start + 1_000) % 3] += 55  # each class has a colour
            opened.write(block.tobytes())
    command = [sys.executable, "-c", TRAINING, str(file), str(count), str(count * size // 2), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    free, capped, fits = json.loads(done.stdout.splitlines()[-1])
    assert capped == free
    assert np.mean(capped[-10:]) < 0.7 * np.mean(capped[:5])
    assert not fits  # the cap is effective
