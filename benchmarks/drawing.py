"""Embedded data: images drawn a second, processes started and all."""

from __future__ import annotations

import tempfile
import time

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.images import open_images
from deepfake_cls.data.sources import read_manifest


def job(count: int, workers: int) -> dict[str, float]:
    """Draw so many images into a store of their own."""
    with tempfile.TemporaryDirectory() as cache:
        config = SyntheticConfig(train_size=count, cache=cache, workers=workers)
        manifest = read_manifest(config)
        started = time.perf_counter()
        open_images(manifest, "train", config, progress=False)
        return {"rate": count / (time.perf_counter() - started)}
