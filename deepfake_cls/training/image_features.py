"""Features that a network computes from each unaugmented image, once for a whole training."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.records import write_atomically


def prepare(
    network: nn.Module, model: dict[str, Any], train: Pixels, validation: Pixels, *, fit: bool, force: bool
) -> None:
    """Compute a network's image features for a training, and hand them to its batches; other networks need nothing.

    Args:
        network: It has such features where it defines ``image_features(images) -> float32 (B, E)``. Where it also
            defines ``fit_image_features(features)``, that gets those of all training images, float32 (N, E), to set
            buffers such as mean and standard deviation.
        model: Its name and arguments.
        train: The training images.
        validation: The validation images.
        fit: Whether to fit; not where a training goes on.
        force: Compute features again that are cached, such as after a change in a module that the network imports.
    """
    if not hasattr(network, "image_features"):
        return
    network.to(train.device)
    for pixels in (train, validation):
        pixels.image_features = _cached(network, model, pixels, force)
    fit_image_features: Any = getattr(network, "fit_image_features", None)
    if fit and fit_image_features is not None:
        with torch.no_grad():
            fit_image_features(train.image_features)


def _cached(network: nn.Module, model: dict[str, Any], pixels: Pixels, force: bool) -> Tensor:
    """The features of all images of a split, kept beside its decoded images."""
    filename = getattr(pixels.split.store.images, "filename", None)
    if filename is None:
        return _computed(network, pixels)
    source = inspect.getsourcefile(type(network))
    code = b"" if source is None else Path(source).read_bytes()  # features of a network that was edited are new
    parts = [pixels.split.store.fingerprint, pixels.channels, model, hashlib.sha256(code).hexdigest()]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    file = Path(filename).with_name(f"image_features-{key[:32]}.npy")
    if force or not file.is_file():
        buffer = io.BytesIO()
        np.save(buffer, _computed(network, pixels).numpy(), allow_pickle=False)
        write_atomically(file, buffer.getvalue())
    return torch.from_numpy(np.load(file, allow_pickle=False))


@torch.inference_mode()
def _computed(network: nn.Module, pixels: Pixels) -> Tensor:
    compute: Any = network.image_features
    found = []
    batches = Batches(pixels, 256)
    with Progress(transient=True) as bar:
        for batch in bar.track(batches, description="image features"):
            found.append(compute(batch.images.permute(0, 3, 1, 2)).float().cpu())
    return torch.cat(found)
