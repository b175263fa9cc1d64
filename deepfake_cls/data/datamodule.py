"""The LightningDataModule of the training and validation images."""

from __future__ import annotations

from typing import Any

import lightning as L

from deepfake_cls.config import DataConfig
from deepfake_cls.data.batches import Batches, Needed, Pixels
from deepfake_cls.data.images import open_images
from deepfake_cls.data.manifest import Manifest


class ImageData(L.LightningDataModule):
    """Training and validation images; ``curve_images`` of the latter score each epoch. The test split is never opened.

    Attributes:
        needed: Which rows of a training batch this process needs; None: all rows.
        scored: Which rows of the other batches this process needs; None: all rows.
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
        self.train = open_images(manifest, "train", config, progress)
        self.validation = open_images(manifest, "validation", config, progress, self.train.store.size)
        self.needed: Needed | None = None
        self.scored: Needed | None = None
        self.train_pixels = Pixels(self.train, channels, device)
        self.validation_pixels = Pixels(self.validation, channels, device)

    def train_dataloader(self) -> Any:
        """Training batches, shuffled."""
        return Batches(self.train_pixels, self.batch_size, self.seed, needed=self.needed)

    def val_dataloader(self) -> Any:
        """Validation batches that score an epoch, in order."""
        return Batches(self.validation_pixels, 4 * self.batch_size, limit=self.curve_images, needed=self.scored)

    def full_val_dataloader(self) -> Batches:
        """All validation batches, in order."""
        return Batches(self.validation_pixels, 4 * self.batch_size, needed=self.scored)

    def clean_train_dataloader(self) -> Batches:
        """Training images without augmentation, in order."""
        return Batches(self.train_pixels, 4 * self.batch_size, needed=self.scored)
