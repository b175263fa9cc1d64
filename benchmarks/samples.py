"""The images of a benchmark: opened as training opens them, and written as PNG files for the baselines."""

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
    """The images to measure with.

    Attributes:
        root: Folder of images; None selects the embedded data, which the other attributes describe.
        train: Number of training images.
        validation: Number of validation images.
        side: Side of an image, pixels.
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
        return files_config(self.root)


def files_config(root: str) -> ImageFilesConfig:
    """The ``data`` group of a folder: ``unibuc`` where it contains ``train.csv``, else ``folder``."""
    path = Path(root).absolute()
    return UnibucConfig(root=str(path)) if (path / "train.csv").is_file() else FolderConfig(root=str(path))


def image_data(source: Source, batch: int, device: str = "cpu") -> ImageData:
    """RGB images, opened as ``deepfake_cls.train`` opens them.

    Args:
        source: The images.
        batch: Images per batch.
        device: The device that trains.
    """
    from deepfake_cls.data.datamodule import ImageData  # imports Lightning, which the neighbours do not need

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


def write_pngs(images: dict[str, SplitImages], folder: Path, limit: int) -> None:
    """Write at most ``limit`` images of each split to ``<split>/<label>/<row>.png``."""
    for name, split in images.items():
        for label in set(split.labels.tolist()):
            (folder / name / str(label)).mkdir(parents=True)

        def write(row: int, name: str = name, split: SplitImages = split) -> None:
            file = folder / name / str(split.labels[row]) / f"{row:06}.png"
            Image.fromarray(split.store.images[row][..., :3]).save(file)

        with ThreadPoolExecutor() as pool:
            list(pool.map(write, range(min(limit, len(split)))))
