"""This project's side: training, input and evaluation through the objects that ``deepfake_cls.train`` builds."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Stopwatch, anonymous
from benchmarks.samples import Source, image_data
from deepfake_cls.config import RecipeConfig, TrainConfig, TrainerConfig, conf_dir
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.hardware import choose
from deepfake_cls.inference import predict_all
from deepfake_cls.models.resnet import ResidualNet
from deepfake_cls.runs import Run
from deepfake_cls.training.fit import build_trainer
from deepfake_cls.training.module import Classifier

LR = 2e-3


class Clock(L.Callback):
    """Tells a stopwatch the end of each training step."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step more."""
        self.watch.step(len(batch[1]))


def classifier(images: ImageData, width: int, steps: int, **changed: Any) -> Classifier:
    """The model as ``deepfake_cls.train`` makes it; ``changed`` are strengths that differ from the paper's."""
    augment = yaml.safe_load((conf_dir() / "augment" / "paper.yaml").read_text())
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
        augment={**augment, **changed},
        recipe=asdict(RecipeConfig()),
    )


def training_flops(width: int, channels: int, classes: int, height: int, side: int) -> float:
    """Floating-point operations that training takes for an image.

    A forward pass, and twice that for the gradients of activations and of weights; a multiplication with its addition
    is 2. Counted by torch on a network without memory.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = ResidualNet(channels, classes, width).eval()
        network(torch.empty(1, channels, height, side, dtype=torch.uint8))
    return 3.0 * float(counter.get_total_flops())


def train(source: dict[str, Any], width: int, batch: int, skip: int, steps: int) -> dict[str, Any]:
    """Train so many steps with the trainer of ``deepfake_cls.train``: its callbacks, its logger, its hardware.

    Args:
        source: The fields of ``samples.Source``.
        width: Channels of the stem.
        batch: Images in a batch.
        skip: Steps that do not count.
        steps: Steps in all, of one epoch; no validation.

    Returns:
        ``rate`` in images a second, ``first_step`` in seconds since the process started, ``flops`` for an image, bytes
        of anonymous memory ``before`` the images are opened.
    """
    config = TrainConfig(width=width, batch_size=batch, epochs=1, trainer=TrainerConfig(device="cpu"))
    hardware = choose(config.trainer)
    before = anonymous()
    images = image_data(Source(**source), batch)
    watch = Stopwatch(skip, steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = build_trainer(
            config, hardware, Run("cnn", Path(folder), "benchmark"), len(images.train_dataloader())
        )
        trainer.callbacks.append(Clock(watch))
        trainer.limit_train_batches, trainer.limit_val_batches = steps, 0
        trainer.fit(classifier(images, width, len(images.train_dataloader())), datamodule=images)
    height, side = images.train.store.size
    flops = training_flops(width, 3, len(images.manifest.classes), height, side)
    return {"rate": watch.rate, "first_step": watch.first_step, "flops": flops, "before": before}


class _ReadyError(Exception):
    """The network's first convolution has its input."""


def load(source: dict[str, Any], width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """All that happens to a training batch before the first convolution; arguments as in :func:`train`.

    Counted are: order, gather from the store, flip, rotation, CutMix, and the network's own conversion, layout and
    normalisation.

    Returns:
        ``rotation`` and ``flip``: images a second with the recipe's rotation and without.
    """
    choose(TrainerConfig(device="cpu"))
    images = image_data(Source(**source), batch)

    def stop(_: nn.Module, __: tuple[Tensor, ...]) -> None:
        raise _ReadyError

    rates = {}
    changes: dict[str, dict[str, None]] = {"rotation": {}, "flip": {"rotation": None}}
    for name, changed in changes.items():
        model = classifier(images, width, steps, **changed)
        first = next(module for module in model.network.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_pre_hook(stop)
        watch = Stopwatch(skip, steps)
        batches = itertools.chain.from_iterable(itertools.repeat(images.train_dataloader()))
        with torch.no_grad():
            for step, loaded in enumerate(itertools.islice(batches, steps)):
                pixels = model.augmented(loaded, 0, step).images
                try:
                    model.network(pixels.permute(0, 3, 1, 2))
                    raise RuntimeError("The network has run without its first convolution: nothing was measured.")
                except _ReadyError:
                    watch.step(len(pixels))
        rates[name] = watch.rate
    return rates


def evaluate(source: dict[str, Any], width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Class probabilities of validation images; arguments as in :func:`train`.

    Returns:
        ``none`` and ``flip``: images a second without and with flip TTA.
    """
    hardware = choose(TrainerConfig(device="cpu"))
    images = image_data(Source(**source), batch)
    model = classifier(images, width, steps).eval()
    rates = {}
    for tta in ("none", "flip"):
        watch = Stopwatch(skip, steps)
        repeated = itertools.chain.from_iterable(itertools.repeat(images.full_val_dataloader()))
        batches = itertools.islice(repeated, steps)
        predict_all(model.network, batches, hardware.device, hardware.precision, tta == "flip", watch.step)
        rates[tta] = watch.rate
    return rates
