"""Small data sets in which a fault can be planted."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls.audit.images import Images, read_images
from deepfake_cls.config import FolderConfig

CLASSES = ("gan", "latent", "real")
COUNTS = {"train": 8, "validation": 4}  # images of each class

Save = Callable[[str, int], Mapping[str, Any]]  # options of Pillow's save, by class and number of the image


def scene(seed: int, side: int = 48) -> NDArray[np.uint8]:
    """A smooth image of random shapes, uint8 (side, side, 3): images of two seeds do not look the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def as_png(name: str, number: int) -> Mapping[str, Any]:
    return {"format": "PNG"}


def write(root: Path, save: Save = as_png, counts: Mapping[str, int] = COUNTS, side: int = 48) -> Path:
    """Images of three classes without a fault: no two are alike, and all file names differ."""
    seed = 0
    for split, count in counts.items():
        for name in CLASSES:
            for number in range(count):
                path = root / split / name / f"{seed:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(scene(seed, side), **save(name, number)))
                seed += 1
    return root


def encoded(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, **options)
    return buffer.getvalue()


def first(root: Path, split: str, name: str, index: int = 0) -> Path:
    """An image of a split and class."""
    return sorted((root / split / name).iterdir())[index]


def read(root: Path, **options: Any) -> Images:
    own: dict[str, Any] = {"root": str(root), "cache": str(root.parent / "cache"), "workers": 1}
    return read_images(FolderConfig(**own | options))
