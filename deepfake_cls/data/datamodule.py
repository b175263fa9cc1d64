"""The LightningDataModule: uint8 batches, in an order that follows from (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from deepfake_cls.config import ImageFilesConfig, SyntheticConfig
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.randomness import generator


def with_channels(images: Tensor, channels: str) -> Tensor:
    """Bring uint8 (B, H, W, 3 or 4) to RGB or RGBA; where there is no alpha plane, it is a constant 255."""
    if channels == "RGB":
        return images[..., :3].contiguous()
    if images.shape[-1] == 3:
        images = torch.cat([images, images.new_full((*images.shape[:3], 1), 255)], dim=-1)
    return images


class Batches:
    """Batches of one split, in file order or in an order drawn for each epoch.

    It is stateful in Lightning's sense: its position is saved with a checkpoint, and a resumed run continues with
    the next batch of the same epoch instead of starting the epoch again.

    Args:
        split: The images.
        batch_size: Images in a batch; the last one may be smaller.
        channels: ``RGB`` or ``RGBA``.
        seed: Shuffle by this seed; None keeps the order.
        limit: Take only so many images, drawn once and for all runs alike; None takes all.
    """

    def __init__(
        self, split: SplitImages, batch_size: int, channels: str, seed: int | None = None, limit: int | None = None
    ) -> None:
        self.split, self.batch_size, self.channels, self.seed = split, batch_size, channels, seed
        self.labels = torch.from_numpy(split.labels)
        self.epoch, self.step = 0, 0
        self.rows = np.arange(len(split))
        if limit is not None and limit < len(split):
            # Drawn and not evenly spaced: files often come with their classes in turn.
            self.rows = np.sort(torch.randperm(len(split), generator=generator(0, "curve")).numpy()[:limit])

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
        for step in range(first, len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = torch.from_numpy(self.split.store.images[rows])
            if self.seed is not None:
                self.epoch, self.step = epoch, step + 1
            yield with_channels(images, self.channels), self.labels[rows]

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
    """

    def __init__(
        self,
        manifest: Manifest,
        config: SyntheticConfig | ImageFilesConfig,
        channels: str,
        batch_size: int,
        seed: int,
        progress: bool,
        curve_images: int | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.batch_size, self.seed, self.curve_images = channels, batch_size, seed, curve_images
        self.manifest = manifest
        self.train = open_images(self.manifest, "train", config, progress)
        size = self.train.store.size
        self.validation = open_images(self.manifest, "validation", config, progress, size)

    def train_dataloader(self) -> Any:
        """Shuffled batches."""
        return Batches(self.train, self.batch_size, self.channels, self.seed)

    def val_dataloader(self) -> Any:
        """Validation batches for an epoch's score, in order."""
        return Batches(self.validation, 4 * self.batch_size, self.channels, limit=self.curve_images)

    def full_val_dataloader(self) -> Batches:
        """All validation batches, in order."""
        return Batches(self.validation, 4 * self.batch_size, self.channels)

    def clean_train_dataloader(self) -> Batches:
        """Training images without augmentation, in order."""
        return Batches(self.train, 4 * self.batch_size, self.channels)
