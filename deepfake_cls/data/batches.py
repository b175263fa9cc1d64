"""Batches of a split: uint8 images on the device, in an order that depends only on (seed, epoch); without Lightning."""

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
from deepfake_cls.data.store import Store
from deepfake_cls.data.whole import CropStore
from deepfake_cls.randomness import generator, to_device


def with_channels(images: Tensor, channels: str) -> Tensor:
    """Convert uint8 (B, H, W, 3 or 4) to RGB or RGBA; an added alpha channel is 255."""
    if channels == "RGB":
        return images[..., :3].contiguous()
    if images.shape[-1] == 3:
        images = torch.cat([images, images.new_full((*images.shape[:3], 1), 255)], dim=-1)
    return images


class ImageBatch(NamedTuple):
    """A batch.

    Attributes:
        images: uint8 (R, H, W, C); with K crops of each image (R·K, H, W, C), those of an image one after the other.
        labels: int64 (B,), −1 if unknown.
        indices: int64 (B,), row of each image in its split.
        rows: int64 (R,), the rows of the batch that ``images`` contains; None: all rows.
        image_features: float32 (R, E), of the unaugmented images, if the network has such features.
        crops: K, the crops of each image.
    """

    images: Tensor
    labels: Tensor
    indices: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    image_features: Tensor | None = None
    crops: int = 1


# Maps indices and labels of a batch, epoch and step to the rows of the batch that this process needs; None: all rows.
Needed: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], "NDArray[np.int64] | None"]


class Pixels:
    """Images and labels of one split, by row.

    If all images fit in a quarter of a GPU's free memory, they are copied to it once. Otherwise they are read from the
    store, a memory map. If the store is larger than memory, :meth:`prefetch` makes the system read the rows of the next
    batch from disk in the background. Images of any size (``data.crop``) are always read from the store.

    Args:
        split: The images.
        channels: ``RGB`` or ``RGBA``.
        device: Device of the batches.
        reused: Whether images are read more than once, so that copying them to a GPU pays off.

    Attributes:
        image_features: float32 (N, E), set if the network has such features.
        crops: Number of crops of each image that are scored; 1 for whole images.
    """

    def __init__(self, split: SplitImages, channels: str, device: str = "cpu", reused: bool = True) -> None:
        self.split, self.channels, self.device = split, channels, torch.device(device)
        self.image_features: Tensor | None = None
        self._resident: Tensor | None = None
        self.crops = split.store.crops.count if isinstance(split.store, CropStore) else 1
        self._try_resident = reused and self.device.type == "cuda" and isinstance(split.store, Store)

    def labels(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the labels of rows (B,) on the device, int64 (B,)."""
        return to_device(torch.from_numpy(self.split.labels[rows]), self.device)

    def features(self, rows: NDArray[np.int64]) -> Tensor | None:
        """Return the image features of rows (B,) on the device, float32 (B, E); None if the network has none."""
        if self.image_features is None:
            return None
        return to_device(self.image_features[torch.from_numpy(rows)], self.device)

    def random_corners(self, rows: NDArray[np.int64], seed: int, epoch: int, step: int) -> NDArray[np.int64] | None:
        """The corner of a random crop of each of rows (B,), int64 (B, 1, 2); None for whole images."""
        if not isinstance(self.split.store, CropStore):
            return None
        positions = torch.rand((len(rows), 2), dtype=torch.float64, generator=generator(seed, "crop", epoch, step))
        return self.split.store.crops.at(self.split.store.whole.sizes[rows], positions.numpy())

    def images(self, rows: NDArray[np.int64], corners: NDArray[np.int64] | None = None) -> Tensor:
        """Return the images of rows (B,) on the device, uint8 (B, H, W, C).

        With ``data.crop``: the crops at corners, int64 (B, K, 2), or those that are scored; uint8 (B·K, H, W, C).
        """
        if self._try_resident:
            self._try_resident = False
            with suppress(torch.cuda.OutOfMemoryError):  # another process has allocated the memory meanwhile
                self.make_resident(torch.cuda.mem_get_info(self.device)[0] // 4)
        if self._resident is not None:
            return self._resident.index_select(0, to_device(torch.from_numpy(rows), self.device))
        store = self.split.store
        if isinstance(store, CropStore):
            pixels = store.read(rows, store.crops.grid(store.whole.sizes[rows]) if corners is None else corners)
        else:
            pixels = store.images[rows]
        return to_device(with_channels(torch.from_numpy(pixels), self.channels), self.device)

    def make_resident(self, max_bytes: int) -> None:
        """Copy all images to the device, unless they take more than ``max_bytes``."""
        pixels = self.split.store.images
        shape = (*pixels.shape[:3], len(self.channels))
        if math.prod(shape) > max_bytes:
            return
        images = torch.empty(shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(pixels), 1024):
            block = torch.from_numpy(np.array(pixels[start : start + 1024]))
            images[start : start + 1024] = with_channels(block, self.channels).to(self.device)
        self._resident = images

    def prefetch(self, rows: NDArray[np.int64], corners: NDArray[np.int64] | None = None) -> None:
        """Make the system read what :meth:`images` returns in the background, unless it is on the device."""
        store = self.split.store
        if isinstance(store, CropStore):
            store.prefetch(rows, store.crops.grid(store.whole.sizes[rows]) if corners is None else corners)
        elif self._resident is None:
            store.prefetch(rows)


class Batches:
    """Batches of one split, in file order or shuffled for each epoch.

    Lightning saves the position in the checkpoint (``state_dict``), so that a resumed run starts with the next batch of
    the same epoch.

    With ``data.crop``, shuffled batches have a random crop of each image. Batches in file order have the crops that are
    scored, and fewer images, so that the number of crops is not above ``batch_size``.

    Args:
        pixels: The images.
        batch_size: Images in a batch; the last batch may be smaller.
        seed: Seed of the order; None keeps the file order.
        limit: Number of images, drawn with a fixed seed; None: all images.
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
        self.pixels, self.seed, self.needed = pixels, seed, needed
        self.batch_size = batch_size if seed is not None else max(1, batch_size // pixels.crops)
        self.epoch, self.step = 0, 0
        count = len(pixels.split)
        self.rows = np.arange(count)
        if limit is not None and limit < count:
            # A random subset for the learning curve; an evenly spaced one would miss classes that alternate.
            self.rows = np.sort(torch.randperm(count, generator=generator(0, "curve")).numpy()[:limit])

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[ImageBatch]:
        if self.step >= len(self):  # Lightning stops at the last batch, so the generator below does not reach its end
            self.epoch, self.step = self.epoch + 1, 0
        return self._from(self.epoch, self.step)

    def _from(self, epoch: int, first_step: int) -> Iterator[ImageBatch]:
        order = self.rows
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=generator(self.seed, "order", epoch)).numpy()]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for step in range(first_step, len(self)):
            batch = self._batch(batches[step], epoch, step)
            if step + 1 < len(self):
                _, read, corners = self._read(batches[step + 1], epoch, step + 1)
                self.pixels.prefetch(read, corners)
            if self.seed is not None:
                self.epoch, self.step = epoch, step + 1
            yield batch

    def _batch(self, indices: NDArray[np.int64], epoch: int, step: int) -> ImageBatch:
        rows, read, corners = self._read(indices, epoch, step)
        images, features = self.pixels.images(read, corners), self.pixels.features(read)
        crops = 1 if self.seed is not None else self.pixels.crops
        return ImageBatch(images, self.pixels.labels(indices), indices, rows, features, crops)

    def _read(
        self, indices: NDArray[np.int64], epoch: int, step: int
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], NDArray[np.int64] | None]:
        """What to read of a batch: rows of the batch (None: all), rows of the split, and corners of random crops."""
        rows = self._needed(indices, epoch, step)
        # Corners are drawn for the complete batch, so that they do not depend on the number of processes.
        corners = None if self.seed is None else self.pixels.random_corners(indices, self.seed, epoch, step)
        if rows is None:
            return None, indices, corners
        return rows, indices[rows], None if corners is None else corners[rows]

    def _needed(self, indices: NDArray[np.int64], epoch: int, step: int) -> NDArray[np.int64] | None:
        if self.needed is None:
            return None
        return self.needed(indices, self.pixels.split.labels[indices], epoch, step)

    def state_dict(self) -> dict[str, int]:
        """Return the position: epoch and step of the next batch."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from a saved position."""
        self.epoch, self.step = state["epoch"], state["step"]
