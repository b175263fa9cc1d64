"""The images that both sides work on: in the project's store, and as PNG files for the plain recipe."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from deepfake_cls.config import FolderConfig, ImageFilesConfig, SyntheticConfig, UnibucConfig
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest

if TYPE_CHECKING:
    from deepfake_cls.data.datamodule import ImageData


@dataclass(frozen=True)
class Source:
    """Which images to measure with.

    Attributes:
        root: A folder of images; None is the embedded data.
        train: Training images of the embedded data.
        validation: Its validation images.
        side: Its images' side in pixels.
    """

    root: str | None = None
    train: int = 2500
    validation: int = 1000
    side: int = 100

    def config(self) -> SyntheticConfig | ImageFilesConfig:
        """The ``data`` group."""
        if self.root is None:
            return SyntheticConfig(
                train_size=self.train, validation_size=self.validation, test_size=0, image_size=self.side
            )
        root = str(Path(self.root).absolute())
        return UnibucConfig(root=root) if (Path(root) / "train.csv").is_file() else FolderConfig(root=root)


def image_data(source: Source, batch: int, device: str = "cpu") -> ImageData:
    """Images as ``deepfake_cls.train`` opens them, RGB.

    Args:
        source: Which images.
        batch: Images in a batch.
        device: Where they are to lie.
    """
    from deepfake_cls.data.datamodule import ImageData  # imports Lightning, which the neighbours do without

    config = source.config()
    return ImageData(
        manifest=read_manifest(config),
        config=config,
        channels="RGB",
        batch_size=batch,
        seed=0,
        progress=False,
        device=device,
    )


def splits(source: Source) -> dict[str, SplitImages]:
    """The training and validation images."""
    config = source.config()
    manifest = read_manifest(config)
    return {name: open_images(manifest, name, config, progress=False) for name in ("train", "validation")}


def write_pngs(images: dict[str, SplitImages], folder: Path, most: int) -> None:
    """Write ``<split>/<label>/<row>.png``.

    Args:
        images: By split.
        folder: Where to.
        most: Images of a split at most.
    """
    for name, split in images.items():
        for label in set(split.labels.tolist()):
            (folder / name / str(label)).mkdir(parents=True)

        def write(row: int, name: str = name, split: SplitImages = split) -> None:
            file = folder / name / str(split.labels[row]) / f"{row:06}.png"
            Image.fromarray(split.store.images[row][..., :3]).save(file)

        with ThreadPoolExecutor() as pool:
            list(pool.map(write, range(min(most, len(split)))))
