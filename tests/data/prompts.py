"""A data layout with groups, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from deepfake_cls.data.manifest import Split
from deepfake_cls.data.sources import FileSource, source
from tests.data.sample_files import noise


@source("test_prompts")
class Prompts(FileSource):
    """``CLASS/PROMPT-NUMBER.png`` without a validation split; the group is the prompt."""

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        paths = sorted(root.glob("*/*.png"))
        classes = tuple(sorted({path.parent.name for path in paths}))
        labels = np.array([classes.index(path.parent.name) for path in paths])
        ids = tuple(path.relative_to(root).as_posix() for path in paths)
        groups = tuple(path.stem.split("-")[0] for path in paths)
        return classes, [Split("train", ids, labels, tuple(paths), groups=groups)]


def write(root: Path, label: str, prompt: int, number: int, seed: int) -> None:
    (root / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, 8, 8)).save(root / label / f"{prompt}-{number}.png")


def prompts(root: Path, count: int = 20) -> None:
    """Two classes with ``count`` prompts of three images; both classes have the same prompts."""
    for index, label in enumerate(("gan", "real")):
        for prompt in range(count):
            for number in range(3):
                write(root, label, prompt, number, seed=1000 * index + 10 * prompt + number)
