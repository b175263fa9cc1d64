"""Training: the LightningModule, augmentation, callbacks, one fit from start to record."""
