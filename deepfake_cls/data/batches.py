"""Batches of a split: uint8 images on the device, in an order that follows from (seed, epoch) alone; no framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls.data.images import SplitImages
from deepfake_cls.randomness import generator, to_device


def with_channels(images: Tensor, channels: str) -> Tensor:
    """Bring uint8 (B, H, W, 3 or 4) to RGB or RGBA; where there is no alpha plane, it is a constant 255."""
    if channels == "RGB":
        return images[..., :3].contiguous()
    if images.shape[-1] == 3:
        images = torch.cat([images, images.new_full((*images.shape[:3], 1), 255)], dim=-1)
    return images


class ImageBatch(NamedTuple):
    """A batch as the data module hands it out.

    Attributes:
        images: uint8 (R, H, W, C).
        labels: int64 (B,), −1 where unknown.
        indices: int64 (B,), the place of each image in its split.
        rows: int64 (R,), which rows of the batch ``images`` holds; None stands for all.
        image_features: float32 (R, E), of the unaugmented images, where the network has such features.
    """

    images: Tensor
    labels: Tensor
    indices: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    image_features: Tensor | None = None


# Rows of a training batch that this process needs, from the batch's indices and labels, epoch and step; None for all.
Needed: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], "NDArray[np.int64] | None"]


class Pixels:
    """Images and labels of one split by row: on a GPU where a quarter of its memory holds them, else from the store.

    The store is a memory map: of a set larger than memory the system keeps what it can and reads the rest again
    while the batch before it is worked on (:meth:`prefetch`).

    Args:
        split: The images.
        channels: ``RGB`` or ``RGBA``.
        device: Where batches are worked on.
        often: Whether images are taken more than once, so that it pays to hold them on a GPU.

    Attributes:
        image_features: float32 (N, E), set for networks that have such features.
    """

    def __init__(self, split: SplitImages, channels: str, device: str = "cpu", often: bool = True) -> None:
        self.split, self.channels, self.device = split, channels, torch.device(device)
        self.image_features: Tensor | None = None
        self._resident: Tensor | None = None
        self._asked = not often

    def labels(self, rows: NDArray[np.int64]) -> Tensor:
        """Labels on the device: int64 (B,).

        Args:
            rows: int64 (B,).
        """
        return to_device(torch.from_numpy(self.split.labels[rows]), self.device)

    def features(self, rows: NDArray[np.int64]) -> Tensor | None:
        """Image features on the device: float32 (B, E); None where there are none.

        Args:
            rows: int64 (B,).
        """
        if self.image_features is None:
            return None
        return to_device(self.image_features[torch.from_numpy(rows)], self.device)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Images on the device: uint8 (B, H, W, C).

        Args:
            rows: int64 (B,).
        """
        if not self._asked and self.device.type == "cuda":
            with suppress(torch.cuda.OutOfMemoryError):  # another process was quicker
                self.make_resident(torch.cuda.mem_get_info(self.device)[0] // 4)
        if self._resident is not None:
            return self._resident.index_select(0, to_device(torch.from_numpy(rows), self.device))
        images = with_channels(torch.from_numpy(self.split.store.images[rows]), self.channels)
        return to_device(images, self.device)

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
        self._resident = images

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
        needed: Which rows of each batch to read.
    """

    def __init__(
        self,
        pixels: Pixels,
        batch_size: int,
        seed: int | None = None,
        limit: int | None = None,
        needed: Needed | None = None,
    ) -> None:
        self.pixels, self.batch_size, self.seed, self.needed = pixels, batch_size, seed, needed
        self.epoch, self.step = 0, 0
        count = len(pixels.split)
        self.rows = np.arange(count)
        if limit is not None and limit < count:
            # Drawn and not evenly spaced: files often come with their classes in turn.
            self.rows = np.sort(torch.randperm(count, generator=generator(0, "curve")).numpy()[:limit])

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        if self.step >= len(self):  # the epoch is done: Lightning stops at the last batch, not behind it
            self.epoch, self.step = self.epoch + 1, 0
        return self._from(self.epoch, self.step)

    def _from(self, epoch: int, first: int) -> Iterator[ImageBatch]:
        order = self.rows
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=generator(self.seed, "order", epoch)).numpy()]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for step in range(first, len(self)):
            batch = self._batch(batches[step], epoch, step)
            if step + 1 < len(self):
                after = batches[step + 1]
                rows = self._needed(after, epoch, step + 1)
                self.pixels.prefetch(after if rows is None else after[rows])
            if self.seed is not None:
                self.epoch, self.step = epoch, step + 1
            yield batch

    def _batch(self, indices: NDArray[np.int64], epoch: int, step: int) -> ImageBatch:
        rows = self._needed(indices, epoch, step)
        taken = indices if rows is None else indices[rows]
        labels = self.pixels.labels(indices)
        return ImageBatch(self.pixels.images(taken), labels, indices, rows, self.pixels.features(taken))

    def _needed(self, indices: NDArray[np.int64], epoch: int, step: int) -> NDArray[np.int64] | None:
        if self.needed is None:
            return None
        return self.needed(indices, self.pixels.split.labels[indices], epoch, step)

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position."""
        self.epoch, self.step = state["epoch"], state["step"]
