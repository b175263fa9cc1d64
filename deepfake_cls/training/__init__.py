"""Training: the LightningModule, augmentation, callbacks, one fit from start to record."""

from deepfake_cls.training import robust
from deepfake_cls.training.augment import Augmentation, Batch, augmentation

__all__ = ["Augmentation", "Batch", "augmentation", "robust"]
