"""Run a trained network on images: logits, probabilities and features; no Lightning."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepfake_cls import distributed
from deepfake_cls.checkpoints import Model, load_model
from deepfake_cls.config import DataConfig, EvaluateConfig, ImageFilesConfig, PredictConfig
from deepfake_cls.crops import Crops
from deepfake_cls.data.batches import Batches, ImageBatch, Pixels
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware, choose
from deepfake_cls.notation import override

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network, in the order of the images.

    Attributes:
        logits: float32 (N, classes); with several crops of an image, the logarithm of ``probs``.
        probs: float32 (N, classes), the softmax of the logits; with several crops of an image, its mean over them.
        features: float32 (N, D), the input of the last ``nn.Linear``, the mean over the crops of an image; None where
            the network has none.
        probs_flip: float32 (N, classes), the mean over each image and its mirror image; None without flip TTA.
        probs_recomputed: float32 (N, classes), with recomputed statistics of batch normalisation, which train adds.
    """

    logits: NDArray[np.float32]
    probs: NDArray[np.float32]
    features: NDArray[np.float32] | None
    probs_flip: NDArray[np.float32] | None = None
    probs_recomputed: NDArray[np.float32] | None = None

    @property
    def final_probs(self) -> NDArray[np.float32]:
        """Probabilities with flip TTA if it was used, else without."""
        return self.probs if self.probs_flip is None else self.probs_flip


class _Features:
    """Saves the input of a network's last ``nn.Linear``."""

    def __init__(self, network: nn.Module) -> None:
        self.features: Tensor | None = None
        linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
        self._handle = linear[-1].register_forward_pre_hook(self._save) if linear else None

    def _save(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.features = inputs[0].detach()

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()


@torch.inference_mode()
def logits_of(
    network: nn.Module, images: Tensor, precision: str, image_features: Tensor | None = None, crops: int = 1
) -> Tensor:
    """Logits of one batch: float32 (B, classes).

    Args:
        network: A registered network in evaluation mode.
        images: uint8 (B·crops, H, W, C), on the network's device.
        precision: ``32-true`` or ``bf16-mixed``.
        image_features: float32 (B, E), for networks that use such features; None computes them.
        crops: Crops of an image, one after the other in ``images``; see :func:`pooled`.
    """
    inputs = [images.permute(0, 3, 1, 2)]
    compute: Any = getattr(network, "image_features", None)
    if image_features is None and compute is not None:
        image_features = mean_of_crops(compute(*inputs).float(), crops)  # in float32, as in training
    inputs += [] if image_features is None else [image_features.repeat_interleave(crops, dim=0)]
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits: Tensor = network(*inputs).float()
    return pooled(logits, crops)


def pooled(logits: Tensor, crops: int) -> Tensor:
    """Average probabilities over the crops of each image: logits (B·crops, classes) to (B, classes).

    The result is the logarithm of the mean probabilities, so that its softmax is these. With one crop, logits stay.
    """
    if crops == 1:
        return logits
    each = logits.log_softmax(dim=1).view(-1, crops, logits.shape[1])
    return each.logsumexp(dim=1) - math.log(crops)


def mean_of_crops(features: Tensor, crops: int) -> Tensor:
    """The mean over the crops of each image: (B·crops, D) to (B, D)."""
    return features if crops == 1 else features.view(-1, crops, features.shape[1]).mean(dim=1)


def predict_all(
    network: nn.Module,
    batches: Iterable[ImageBatch],
    device: str | torch.device,
    precision: str,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Outputs:
    """Run a network on all images.

    Each of n processes runs every n-th batch, and all processes get all outputs.

    Args:
        network: In evaluation mode, on the device.
        batches: From the data module, in order.
        device: Device of the network.
        precision: ``32-true`` or ``bf16-mixed``.
        flip: Also run the mirror images (the paper's flip TTA).
        progress: Called with the number of images after each batch.

    Raises:
        InputError: If an output is not finite.
    """
    outputs: dict[int, tuple[Tensor | None, ...]] = {}
    hook = _Features(network)
    try:
        for index, batch in enumerate(batches):
            if index % distributed.world_size() == distributed.rank():
                images = batch.images.to(device)
                logits = logits_of(network, images, precision, batch.image_features, batch.crops)
                features = None
                if hook.features is not None:
                    features = mean_of_crops(hook.features.flatten(1).float(), batch.crops)
                probs, flipped = logits.softmax(dim=1), None
                if flip:
                    mirrored = logits_of(network, images.flip(2), precision, crops=batch.crops).softmax(dim=1)
                    flipped = torch.stack([probs, mirrored]).mean(dim=0)
                outputs[index] = (logits, probs, features, flipped)
            if progress is not None:
                progress(len(batch.labels))
    finally:
        hook.remove()
    # Copied only at the end, since each copy waits for the device.
    on_cpu = {index: tuple(None if part is None else part.cpu() for part in parts) for index, parts in outputs.items()}
    all_logits, all_probs, all_features, all_flipped = map(_joined, zip(*distributed.gather(on_cpu), strict=True))
    assert all_logits is not None
    assert all_probs is not None
    _require_finite(all_logits)
    return Outputs(all_logits, all_probs, all_features, all_flipped)


def _require_finite(logits: NDArray[np.float32]) -> None:
    count = int((~np.isfinite(logits)).any(axis=1).sum())
    if count:
        raise InputError(
            f"The network's outputs are not finite for {count:,} of {len(logits):,} images: its weights are damaged, or"
            " its training diverged. Use another checkpoint, or train again with a lower learning rate."
        )


def _joined(parts: tuple[Tensor | None, ...]) -> NDArray[np.float32] | None:
    tensors = [part for part in parts if part is not None]
    return np.asarray(torch.cat(tensors).numpy(), dtype=np.float32) if tensors else None


def open_model(config: EvaluateConfig | PredictConfig) -> tuple[Model, Hardware]:
    """Rebuild the model of ``config.checkpoint`` on the chosen device, ready to predict."""
    hardware = choose(config.trainer)
    model = load_model(config.checkpoint)
    model.network.to(hardware.device)
    return model, hardware


def data_as_trained(data: DataConfig, model: Model) -> DataConfig:
    """The configuration of the data, with what the training did to images: ``resize``, ``crop``, ``reencode``.

    Raises:
        InputError: If a key contradicts the training.
    """
    if not isinstance(data, ImageFilesConfig):
        return data
    if model.resize:
        data = replace(data, resize=True)
    if None not in (data.reencode, model.reencode) and data.reencode != model.reencode:
        raise InputError(
            f"data.reencode={data.reencode}: the model was trained with data.reencode={model.reencode}; omit this key."
        )
    if data.reencode is None and model.reencode is not None:
        _log.info("Images are re-encoded as in the training: data.reencode=%s", model.reencode)
    if data.reencode is not None and model.reencode is None:
        _log.warning("data.reencode=%s, but the model was trained without it.", data.reencode)
    return _cropped_as_trained(replace(data, reencode=data.reencode or model.reencode), model.crops)


def _cropped_as_trained(data: ImageFilesConfig, crops: Crops | None) -> ImageFilesConfig:
    """The configuration with the crops of the training; other than default values of ``crops`` and ``small`` stay."""
    trained = "whole images" if crops is None else f"crops of {crops.side}×{crops.side} native pixels"
    if data.crop is not None and (crops is None or data.crop != crops.side):
        raise InputError(f"data.crop={data.crop}: the model was trained on {trained}; omit this key.")
    if crops is None:
        return data
    for key, value in (("size", data.size), ("resize", data.resize)):
        if value:
            raise InputError(f"{override(f'data.{key}', value)}: the model was trained on {trained}; omit this key.")
    default = ImageFilesConfig()
    count = crops.count if data.crops == default.crops else data.crops
    small = crops.small if data.small == default.small else data.small
    return replace(data, crop=crops.side, crops=count, small=small)


def open_scored_split(config: EvaluateConfig | PredictConfig, model: Model, manifest: Manifest) -> SplitImages:
    """Open ``config.split``, at the size that the model was trained on.

    Raises:
        InputError: If the data is wrong, or of another size without ``data.resize=true``; also if ``data.size`` differs
            from the model's size.
    """
    manifest.split(config.split, "; choose one with split=NAME")
    compare_with_training(config.data, model)
    return open_images(manifest, config.split, config.data, config.trainer.progress, model.size)


def compare_with_training(data: DataConfig, model: Model) -> None:
    """Warn if ``data.resize`` differs from the training's, and refuse another ``data.size``.

    Raises:
        InputError: If ``data.size`` is given and differs from the model's size.
    """
    size, resize = getattr(data, "size", None), getattr(data, "resize", None)
    height, width = model.size
    if size is not None and tuple(size) != model.size:
        given = ",".join(map(str, size))
        raise InputError(f"data.size=[{given}]: the model was trained on images of [{height},{width}]; omit data.size.")
    if None not in (resize, model.resize) and resize != model.resize:
        here, training = str(resize).lower(), str(model.resize).lower()
        _log.warning(
            "data.resize=%s, but the model was trained with data.resize=%s. Resizing changes the traces of generators,"
            " so expect a lower accuracy.", here, training,
        )  # fmt: skip


def predict_split(
    config: EvaluateConfig | PredictConfig, model: Model, split: SplitImages, hardware: Hardware
) -> Outputs:
    """Run a model on a split, with a progress bar.

    Raises:
        InputError: If the images have another size than the model's, which a layout without ``data.size`` may give.
    """
    if split.store.size != model.size:
        (height, width), (trained_height, trained_width) = split.store.size, model.size
        raise InputError(
            f"The images are of [{height},{width}], and the model was trained on images of"
            f" [{trained_height},{trained_width}]; give images of that size."
        )
    batches = Batches(Pixels(split, model.channels, hardware.device, reused=False), config.batch_size)
    return predict_batches(config, model, batches, len(split), hardware)


def predict_batches(
    config: EvaluateConfig | PredictConfig, model: Model, batches: Iterable[ImageBatch], count: int, hardware: Hardware
) -> Outputs:
    """Run a model on batches of ``count`` images, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    disable = not config.trainer.progress or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), transient=True, disable=disable) as bar:
        task = bar.add_task("images", total=count)
        return predict_all(
            model.network,
            batches,
            hardware.device,
            hardware.precision,
            config.tta == "flip",
            lambda count: bar.advance(task, count),
        )
