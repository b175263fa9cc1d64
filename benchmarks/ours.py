"""This project's side: training, input and evaluation through the objects that ``deepfake_cls.train`` builds."""

from __future__ import annotations

import itertools
import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Stopwatch, anonymous_memory
from benchmarks.samples import Source, image_data
from deepfake_cls.config import RecipeConfig, TrainConfig, TrainerConfig, conf_dir
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.hardware import choose
from deepfake_cls.inference import predict_all
from deepfake_cls.models.resnet import ResidualNet
from deepfake_cls.run_folders import Run
from deepfake_cls.training.fit import build_trainer
from deepfake_cls.training.module import Classifier

LR = 2e-3


class Clock(L.Callback):
    """Reports the end of each training step to a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self.watch.step(len(batch[1]))


def classifier(images: ImageData, width: int, steps: int) -> Classifier:
    """The model of ``deepfake_cls.train``, with the paper's augmentations and recipe."""
    return Classifier(
        classes=list(images.manifest.classes),
        size=list(images.train.store.size),
        channels="RGB",
        model={"name": "resnet", "args": {}},
        width=width,
        dropout=0.3,
        lr=LR,
        epochs=1,
        steps=steps,
        seed=0,
        augment=yaml.safe_load((conf_dir() / "augment" / "paper.yaml").read_text()),
        recipe=asdict(RecipeConfig()),
    )


def training_flops(width: int, channels: int, classes: int, height: int, side: int) -> float:
    """Floating-point operations to train on one image (height, side).

    The forward pass, and twice that for the gradients of activations and weights; a multiplication and its addition
    count as 2. Torch counts them on the meta device.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = ResidualNet(channels, classes, width).eval()
        network(torch.empty(1, channels, height, side, dtype=torch.uint8))
    return 3.0 * float(counter.get_total_flops())


def train(
    source: dict[str, Any], width: int, batch: int, skip: int, steps: int, device: str = "cpu", logger: bool = True
) -> dict[str, Any]:
    """Train with the trainer of ``deepfake_cls.train``: its callbacks, its logger, its hardware.

    Args:
        source: The fields of :class:`samples.Source`.
        width: Channels of the stem.
        batch: Images per batch.
        skip: Warm-up steps.
        steps: Total steps: a part of an epoch, or full epochs. There is no validation.
        device: ``cpu`` or ``cuda``.
        logger: Whether to use the logger, for which Lightning imports OmegaConf.

    Returns:
        ``rate`` (images per second), ``first_step`` (seconds since the process started), ``flops`` (per image) and
        ``before`` (anonymous memory before the images are opened, bytes).
    """
    trainer_config = TrainerConfig(device=device)
    hardware = choose(trainer_config)
    before = anonymous_memory()
    images = image_data(Source(**source), batch, device)
    epoch = len(images.train_dataloader())
    config = TrainConfig(width=width, batch_size=batch, epochs=math.ceil(steps / epoch), trainer=trainer_config)
    watch = Stopwatch(skip, steps, torch.cuda.synchronize if device == "cuda" else lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = build_trainer(config, hardware, Run("cnn", Path(folder), "benchmark"), epoch)
        trainer.callbacks.append(Clock(watch))
        trainer.limit_train_batches, trainer.limit_val_batches = min(steps, epoch), 0
        if not logger:
            trainer.loggers = []
        trainer.fit(classifier(images, width, max(steps, epoch)), datamodule=images)
    height, side = images.train.store.size
    flops = training_flops(width, 3, len(images.manifest.classes), height, side)
    return {"rate": watch.rate, "first_step": watch.first_step, "flops": flops, "before": before}


class _InputReadyError(Exception):
    """The first convolution has its input."""


def load(source: dict[str, Any], width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Time everything before the first convolution of a training step; arguments as in :func:`train`.

    That is: order, reading from the store, flip, rotation, CutMix, and the network's conversion, memory layout and
    normalisation.

    Returns:
        ``rate``: images per second.
    """
    choose(TrainerConfig(device="cpu"))
    images = image_data(Source(**source), batch)

    def stop(_: nn.Module, __: tuple[Tensor, ...]) -> None:
        raise _InputReadyError

    model = classifier(images, width, steps)
    first = next(module for module in model.network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(stop)
    watch = Stopwatch(skip, steps)
    batches = itertools.chain.from_iterable(itertools.repeat(images.train_dataloader()))
    with torch.no_grad():
        for step, loaded in enumerate(itertools.islice(batches, steps)):
            pixels = model.augmented(loaded, 0, step).images
            try:
                model.network(pixels.permute(0, 3, 1, 2))
                raise RuntimeError("The network ran without its first convolution, so nothing was measured.")
            except _InputReadyError:
                watch.step(len(pixels))
    return {"rate": watch.rate}


def evaluate(source: dict[str, Any], width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Time class probabilities of validation images; arguments as in :func:`train`.

    Returns:
        ``rate``: images per second.
    """
    hardware = choose(TrainerConfig(device="cpu"))
    images = image_data(Source(**source), batch)
    model = classifier(images, width, steps).eval()
    watch = Stopwatch(skip, steps)
    batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(images.full_val_dataloader())), steps)
    predict_all(model.network, batches, hardware.device, hardware.precision, progress=watch.step)
    return {"rate": watch.rate}
