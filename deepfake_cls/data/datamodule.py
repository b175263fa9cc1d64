"""The LightningDataModule: uint8 batches, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls.config import DataConfig
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.randomness import generator, moved


def with_channels(images: Tensor, channels: str) -> Tensor:
    """Bring uint8 (B, H, W, 3 or 4) to RGB or RGBA; where there is no alpha plane, it is a constant 255."""
    if channels == "RGB":
        return images[..., :3].contiguous()
    if images.shape[-1] == 3:
        images = torch.cat([images, images.new_full((*images.shape[:3], 1), 255)], dim=-1)
    return images


class Pixels:
    """Images and labels of one split by row: on a GPU where a quarter of its memory holds them, else from the store.

    The store is a memory map: of a set larger than memory the system keeps what it can and reads the rest again
    while the batch before it is worked on (:meth:`prefetch`).

    Args:
        split: The images.
        channels: ``RGB`` or ``RGBA``.
        device: Where batches are worked on.
        often: Whether images are taken more than once, so that it pays to hold them on a GPU.
    """

    def __init__(self, split: SplitImages, channels: str, device: str = "cpu", often: bool = True) -> None:
        self.split, self.channels, self.device = split, channels, torch.device(device)
        self._labels = torch.from_numpy(split.labels)
        self._resident: Tensor | None = None
        self._asked = not often

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """A batch on the device.

        Args:
            rows: int64 (B,).

        Returns:
            uint8 (B, H, W, C) and int64 (B,).
        """
        if not self._asked and self.device.type == "cuda":
            with suppress(torch.cuda.OutOfMemoryError):  # another process was quicker
                self.make_resident(torch.cuda.mem_get_info(self.device)[0] // 4)
        if self._resident is not None:
            index = moved(torch.from_numpy(rows), self.device)
            return self._resident.index_select(0, index), self._labels.index_select(0, index)
        images = with_channels(torch.from_numpy(self.split.store.images[rows]), self.channels)
        return moved(images, self.device), moved(torch.from_numpy(self.split.labels[rows]), self.device)

    def make_resident(self, room: int) -> None:
        """Copy all images to the device, if they fit.

        Args:
            room: Bytes that they may take.
        """
        self._asked = True
        pixels = self.split.store.images
        shape = (*pixels.shape[:3], len(self.channels))
        if math.prod(shape) > room:
            return
        images = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(pixels), 1024):
            block = torch.from_numpy(np.array(pixels[start : start + 1024]))
            images[start : start + 1024] = with_channels(block, self.channels).to(self.device)
        self._resident, self._labels = images, self._labels.to(self.device)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Have the system read these rows from disk in the background, where they are not in memory.

        Args:
            rows: int64 (B,), of the next batch.
        """
        if self._resident is None:
            self.split.store.prefetch(rows)


class Batches:
    """Batches of one split, in file order or in an order drawn for each epoch.

    It is stateful in Lightning's sense: its position is saved with a checkpoint, and a resumed run continues with
    the next batch of the same epoch instead of starting the epoch again.

    Args:
        pixels: The images.
        batch_size: Images in a batch; the last one may be smaller.
        seed: Shuffle by this seed; None keeps the order.
        limit: Take only so many images, drawn once and for all runs alike; None takes all.
    """

    def __init__(self, pixels: Pixels, batch_size: int, seed: int | None = None, limit: int | None = None) -> None:
        self.pixels, self.batch_size, self.seed = pixels, batch_size, seed
        self.epoch, self.step = 0, 0
        count = len(pixels.split)
        self.rows = np.arange(count)
        if limit is not None and limit < count:
            # Drawn and not evenly spaced: files often come with their classes in turn.
            self.rows = np.sort(torch.randperm(count, generator=generator(0, "curve")).numpy()[:limit])

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.step >= len(self):  # the epoch is done: Lightning stops at the last batch, not behind it
            self.epoch, self.step = self.epoch + 1, 0
        return self._from(self.epoch, self.step)

    def _from(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.rows
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=generator(self.seed, "order", epoch)).numpy()]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for step in range(first, len(self)):
            batch = self.pixels.take(batches[step])
            self.pixels.prefetch(np.concatenate(batches[step + 1 : step + 2] or [order[:0]]))
            if self.seed is not None:
                self.epoch, self.step = epoch, step + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position."""
        self.epoch, self.step = state["epoch"], state["step"]


class ImageData(L.LightningDataModule):
    """Training and validation images; the test split is never opened here.

    Args:
        manifest: Which images there are.
        config: The ``data`` group.
        channels: ``RGB`` or ``RGBA``.
        batch_size: Images in a batch.
        seed: Seed of the data order.
        progress: Show a bar while images are decoded.
        curve_images: Validation images that score each epoch; None takes all.
        device: Where batches are worked on.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: DataConfig,
        channels: str,
        batch_size: int,
        seed: int,
        progress: bool,
        curve_images: int | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.batch_size, self.seed, self.curve_images = batch_size, seed, curve_images
        self.manifest = manifest
        self.train = open_images(self.manifest, "train", config, progress)
        size = self.train.store.size
        self.validation = open_images(self.manifest, "validation", config, progress, size)

        self._train = Pixels(self.train, channels, device)
        self._validation = Pixels(self.validation, channels, device)

    def train_dataloader(self) -> Any:
        """Shuffled batches."""
        return Batches(self._train, self.batch_size, self.seed)

    def val_dataloader(self) -> Any:
        """Validation batches for an epoch's score, in order."""
        return Batches(self._validation, 4 * self.batch_size, limit=self.curve_images)

    def full_val_dataloader(self) -> Batches:
        """All validation batches, in order."""
        return Batches(self._validation, 4 * self.batch_size)

    def clean_train_dataloader(self) -> Batches:
        """Training images without augmentation, in order."""
        return Batches(self._train, 4 * self.batch_size)
