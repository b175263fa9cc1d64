"""Models and batches that several test files build."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from deepfake_cls.config import RecipeConfig
from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.training.module import Classifier


def classifier(
    channels: str = "RGBA",
    *,
    flip: float = 0.5,
    degrees: float = 10.0,
    fill_alpha: str = "mask",
    cutmix: float = 0.5,
    augment: dict[str, Any] | None = None,
    dropout: float = 0.0,
    model: dict[str, Any] | None = None,
    **recipe: float,
) -> Classifier:
    """A network of width 8 for three classes of 20×20 images; defaults are the paper's."""
    paper = {
        "flip": {"p": flip},
        "rotation": {"degrees": degrees, "fill_alpha": fill_alpha},
        "cutmix": {"p": cutmix, "alpha": 1.0},
    }
    return Classifier(
        classes=["a", "b", "c"],
        size=[20, 20],
        channels=channels,
        model=model or {"name": "resnet", "args": {}},
        width=8,
        dropout=dropout,
        lr=1e-2,
        epochs=1,
        steps=50,
        seed=5,
        augment=paper if augment is None else augment,
        recipe={**asdict(RecipeConfig()), **recipe},
    )


def batch(channels: int = 4, count: int = 6) -> ImageBatch:
    """Images of random pixels, with the labels 0, 1, 2, 0, 1, ..."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 20, 20, channels), dtype=torch.uint8, generator=rng)
    return ImageBatch(images, torch.arange(count) % 3, np.arange(count))
