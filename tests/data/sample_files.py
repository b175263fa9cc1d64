"""Small image files, and helpers that read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls.config import ImageFilesConfig, SyntheticConfig
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.data.store import open_split
from deepfake_cls.errors import InputError

_DEFAULT = Path(__file__).parents[2] / ".." / "shared" / "unibuc"
UNIBUC = Path(os.environ.get("DEEPFAKE_CLS_UNIBUC", _DEFAULT)).resolve()
needs_unibuc = pytest.mark.skipif(not UNIBUC.is_dir(), reason=f"no real data in {UNIBUC}: set DEEPFAKE_CLS_UNIBUC")
ATTRIBUTION = Path(os.environ.get("DEEPFAKE_CLS_ATTRIBUTION", UNIBUC.with_name("attribution"))).resolve()
needs_attribution = pytest.mark.skipif(
    not ATTRIBUTION.is_dir(), reason=f"no real data in {ATTRIBUTION}: set DEEPFAKE_CLS_ATTRIBUTION"
)

Config: TypeAlias = Callable[..., ImageFilesConfig]  # makes a configuration from its options

COUNT = 2 * 32 + 7  # several chunks, the last one short
HEIGHT, WIDTH = 5, 6


def noise(row: int, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> NDArray[np.uint8]:
    """Pixels of image ``row``, uint8 (height, width, channels)."""
    return np.random.default_rng(row).integers(0, 256, (height, width, channels), np.uint8)


def write_split(folder: Path) -> Split:
    """Write 71 images of two classes; their order in the split is not that of their names."""
    folder.mkdir()
    ids = tuple(f"{(7 * row) % COUNT:03d}" for row in range(COUNT))
    split = Split("train", ids, np.arange(COUNT) % 2, tuple(folder / f"{image_id}.png" for image_id in ids))
    for row in range(COUNT):
        replace(split, row, noise(row))
    return split


def path_of(split: Split, row: int) -> Path:
    assert split.paths is not None
    return split.paths[row]


def replace(split: Split, row: int, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(path_of(split, row))


def spoil(split: Split, *rows: int) -> None:
    for row in rows:
        path_of(split, row).write_bytes(b"")


def folders(cache: Path, kind: str) -> list[Path]:
    """List the folders of finished (``store``) or unfinished (``building``) builds."""
    return [path for path in cache.glob(f"{kind}-*") if path.is_dir()]


def refusal(split: Split, config: ImageFilesConfig | SyntheticConfig, **options: Any) -> str:
    """Return the message of the error that opening the split raises."""
    with pytest.raises(InputError) as caught:
        open_split(split, config, **options)
    return str(caught.value)


def images(folder: Path, *names: str) -> None:
    """Write text files with the names of images; opening one as an image fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("no image")


def table(path: Path, *rows: str, header: str = "image_id,label") -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def read(root: Path, name: str = "unibuc", **options: object) -> Manifest:
    return read_manifest(ImageFilesConfig(name=name, root=str(root), **options))  # type: ignore[arg-type]


def read_refusal(root: Path, name: str = "unibuc", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(root, name, **options)
    return str(caught.value)


def content(split: Split) -> dict[str, int]:
    return dict(zip(split.ids, split.labels.tolist(), strict=True))
