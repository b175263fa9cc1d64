"""Features that a network computes from each unaugmented image, once for all trainings."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.whole import CropStore
from deepfake_cls.files import write_atomically
from deepfake_cls.inference import mean_of_crops
from deepfake_cls.records import RESULT_VERSION


def prepare(
    network: nn.Module, model: dict[str, Any], train: Pixels, validation: Pixels, *, fit: bool, force: bool
) -> None:
    """Compute the image features of a training and attach them to its images, if the network has such features.

    A network has them if it defines ``image_features(images) -> float32 (B, E)``. With ``data.crop``, those of an image
    are the mean over the crops that are scored, in training too. If the network also defines
    ``fit_image_features(features)``, that is called with the features of all training images, float32 (N, E), to set
    buffers such as mean and standard deviation.

    Args:
        network: The network.
        model: Its name and arguments.
        train: The training images.
        validation: The validation images.
        fit: Call ``fit_image_features``; a resumed run has the buffers in its checkpoint.
        force: Ignore cached features, for example after a change in a module that the network imports.
    """
    if not hasattr(network, "image_features"):
        return
    network.to(train.device)
    for pixels in (train, validation):
        pixels.image_features = _load_or_compute(network, model, pixels, force)
    fit_image_features: Any = getattr(network, "fit_image_features", None)
    if fit and fit_image_features is not None:
        with torch.no_grad():
            fit_image_features(train.image_features)


def _load_or_compute(network: nn.Module, model: dict[str, Any], pixels: Pixels, force: bool) -> Tensor:
    """The features of all images of a split, cached beside its decoded images."""
    store = pixels.split.store
    if store.folder is None:
        return _compute(network, pixels)
    source = inspect.getsourcefile(type(network))
    code = b"" if source is None else Path(source).read_bytes()  # after an edit the features are computed again
    parts = [store.fingerprint, pixels.channels, model, hashlib.sha256(code).hexdigest(), RESULT_VERSION]
    if isinstance(store, CropStore):
        parts.append(asdict(store.crops))
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    file = store.folder / f"image_features-{key[:32]}.npy"
    features = None if force else _load(file, len(pixels.split))
    if features is None:
        features = _compute(network, pixels)
        buffer = io.BytesIO()
        np.save(buffer, features.numpy(), allow_pickle=False)
        write_atomically(file, buffer.getvalue(), "choose another folder with data.cache=PATH")
    return features


def _load(file: Path, count: int) -> Tensor | None:
    """The cached features of so many images; None if there are none, or the file is damaged."""
    try:
        features = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    complete = isinstance(features, np.ndarray) and features.dtype == np.float32 and features.shape[:1] == (count,)
    return torch.from_numpy(features) if complete else None


@torch.inference_mode()
def _compute(network: nn.Module, pixels: Pixels) -> Tensor:
    image_features: Any = network.image_features
    features = []
    with Progress(transient=True) as bar:
        for batch in bar.track(Batches(pixels, 256), description="image features"):
            of_crops = image_features(batch.images.permute(0, 3, 1, 2)).float()
            features.append(mean_of_crops(of_crops, batch.crops).cpu())
    return torch.cat(features)
