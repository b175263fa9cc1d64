"""The LightningModule: one step for every stage, the optimiser, and the augmentation of a training batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from deepfake_cls import distributed
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import synchronise
from deepfake_cls.models.resnet import ResidualNet, initialise
from deepfake_cls.randomness import generator, moved
from deepfake_cls.training import augment

Batch = tuple[Tensor, Tensor]  # uint8 (B, H, W, C), int64 (B,)


class Classifier(L.LightningModule):
    """A residual network with the report's training.

    All arguments are plain numbers, words, lists and dicts, and travel in the checkpoint: a checkpoint alone
    rebuilds the model, under ``weights_only=True``.

    Args:
        classes: Names of the classes, in label order.
        size: [height, width] of the training images.
        channels: ``RGB`` or ``RGBA``.
        width: Channels of the stem.
        dropout: Dropout probability of the head.
        lr: Peak learning rate.
        steps: Optimiser steps of the whole training.
        seed: Seed of weights and of every draw.
        recipe: The fields of ``RecipeConfig``.
        identity: Identity of the run that trains it.
    """

    def __init__(
        self,
        classes: list[str],
        size: list[int],
        channels: str,
        width: int,
        dropout: float,
        lr: float,
        steps: int,
        seed: int,
        recipe: dict[str, float | str],
        identity: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.classes, self.seed, self.lr, self.steps = classes, seed, lr, steps
        self.recipe: dict[str, Any] = recipe
        self.network = ResidualNet(len(channels), len(classes), width, dropout, skips=bool(recipe.get("skips", True)))
        initialise(self.network, seed)
        self.history: list[dict[str, float]] = []
        # Their checks of every batch would make the host wait for the GPU; an infinite loss is found after the epoch.
        # Without them MeanMetric takes no weights (torchmetrics 1.9 sets all to 1), so a batch counts by its images.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(len(classes), validate_args=False)
        self.last_loss = torch.zeros(())
        self.first_step: float | None = None
        self._epoch_started = time.perf_counter()
        self._images_done = 0

    def _step(self, stage: str, batch: Batch, step: int) -> Tensor:
        """One batch of any stage: augmented and mixed in training, as it is otherwise.

        Where many processes share the job, each trains on its share of every batch and validates every n-th batch.
        A batch is augmented whole before it is shared, since CutMix takes boxes across the shares.

        Args:
            stage: ``train`` or ``val``.
            batch: uint8 (B, H, W, C) images and int64 (B,) labels, the global batch.
            step: Index of the batch within the epoch.

        Returns:
            The mean loss over the batch; of many processes each returns its part of it, so scaled that their mean,
            which is what DDP makes of the gradients, is that of the batch.
        """
        images, labels = batch
        if stage == "val":
            logits = self.network(images.permute(0, 3, 1, 2))
            loss = F.cross_entropy(logits, labels)
            self.val_loss.update(loss.expand(len(labels)))
            self.confusion.update(logits, labels)
            return loss
        images, cutmix = self.augmented(images, self.current_epoch, step)
        draws = generator(self.seed, "dropout", self.current_epoch, step)
        keep = torch.rand(len(images), self.network.hidden, generator=draws) >= self.network.dropout
        own = distributed.share(len(images))
        count = len(labels[own])
        logits = self.network(images[own].permute(0, 3, 1, 2), moved(keep[own], images.device))
        if count == 0:  # the other processes wait for this one's gradients, which are 0
            nothing: Tensor = logits.sum()
            return nothing
        smoothing = self.recipe["label_smoothing"]
        loss = F.cross_entropy(logits, labels[own], label_smoothing=smoothing)
        if cutmix is not None:
            others = labels[moved(cutmix.partner, labels.device)]
            other = F.cross_entropy(logits, others[own], label_smoothing=smoothing)
            loss = cutmix.weight * loss + (1.0 - cutmix.weight) * other
        self.last_loss = loss.detach()
        self.train_loss.update(self.last_loss.expand(count))
        return loss * (count * distributed.world_size() / len(labels))

    def augmented(self, images: Tensor, epoch: int, step: int) -> tuple[Tensor, augment.CutMix | None]:
        """The batch as the network sees it in training.

        Args:
            images: uint8 (B, H, W, C).
            epoch: Epoch, from 0.
            step: Batch within the epoch, from 0.

        Returns:
            uint8 (B, H, W, C), and the CutMix that was applied, or None.
        """
        recipe = self.recipe
        count, height, width, channels = images.shape

        def draws(purpose: str) -> torch.Generator:
            return generator(self.seed, purpose, epoch, step)

        flipped = augment.draw_flip(count, recipe["flip"], draws("flip"))
        degrees = augment.draw_rotation(count, recipe["rotation"], draws("rotation"))
        cutmix = augment.draw_cutmix(count, height, width, recipe["cutmix"], recipe["cutmix_alpha"], draws("cutmix"))
        if recipe["rotation"] > 0:
            fill = torch.zeros(channels, dtype=torch.uint8)
            if channels == 4 and recipe["alpha_fill"] == "constant":
                fill[3] = 255
            images = augment.flip_and_rotate(images, flipped, degrees, fill)
        else:
            images = augment.flip(images, flipped)
        if cutmix is not None:
            images = augment.apply_cutmix(images, cutmix)
        return images, cutmix

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One optimiser step's loss."""
        loss = self._step("train", batch, batch_idx)
        self._images_done += len(batch[1])
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Time the first step, which includes compilation and warm-up."""
        if self.first_step is None:
            synchronise(self.device)
            self.first_step = time.perf_counter() - self._epoch_started

    def images_per_second(self) -> float:
        """The training rate of this epoch until now; waits for the device, so it is for display alone."""
        synchronise(self.device)
        return self._images_done / max(time.perf_counter() - self._epoch_started, 1e-9)

    def on_train_start(self) -> None:
        """Start the clock also of a run that goes on within an epoch."""
        self._epoch_started = time.perf_counter()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch's loss and confusions."""
        if batch_idx % distributed.world_size() == distributed.rank():
            self._step("val", batch, batch_idx)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's clock."""
        self._epoch_started, self._images_done = time.perf_counter(), 0

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, loss and recall, and add the epoch to the history."""
        confusion = self.confusion.compute().float()
        if not bool(torch.isfinite(self.val_loss.compute())):
            raise InputError(
                f"Training diverged: the validation loss is not finite after epoch {self.current_epoch + 1}."
                f" Lower the learning rate (lr={self.lr:g})."
            )
        correct = confusion.diagonal()
        accuracy = correct.sum() / confusion.sum()
        recall = correct / confusion.sum(dim=1).clamp(min=1)
        self.log("val_acc", accuracy, prog_bar=True, logger=False)
        self.log("val/accuracy", accuracy)
        self.log("val/loss", self.val_loss.compute())
        for name, value in zip(self.classes, recall, strict=True):
            self.log(f"recall/{name}", value)
        if not self.trainer.sanity_checking:
            self.history.append(
                {
                    "epoch": float(self.current_epoch),
                    "train_loss": float(self.train_loss.compute()),
                    "val_loss": float(self.val_loss.compute()),
                    "val_acc": float(accuracy),
                    "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
                    "seconds": time.perf_counter() - self._epoch_started,
                }
            )
        self.train_loss.reset()
        self.val_loss.reset()

    def on_validation_end(self) -> None:
        """Forget the confusions only after the callbacks have drawn them."""
        self.confusion.reset()

    def configure_optimizers(self) -> Any:
        """AdamW with OneCycleLR: cosine, warm-up over a share of all steps, from lr/25 (the report's table 3)."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.lr, weight_decay=self.recipe["weight_decay"], fused=True
        )
        warmup = self.recipe["warmup"]
        if abs(warmup * self.steps - 1) < 1e-6:
            warmup *= 1 + 1e-6  # torch divides by (steps of warm-up − 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=self.lr, total_steps=self.steps, pct_start=warmup
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the learning curve with the weights, so that a resumed run has all of it."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the learning curve where it stopped."""
        self.history = list(checkpoint.get("history", []))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project without unpickling anything but tensors and plain values.

    Raises:
        InputError: If the file is absent, is no checkpoint, or holds something else.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"checkpoint={file}: is a folder; give a file, such as {file}/checkpoints/last.ckpt.")
    if not file.is_file():
        raise InputError(f"checkpoint={file}: no such file. A run keeps its own in checkpoints/best.ckpt.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"checkpoint={file}: not a checkpoint that loads with weights_only=True"
            f" ({str(error).splitlines()[0][:120]}). Give a file that this project wrote."
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise InputError(f"checkpoint={file}: holds no state_dict with hyper_parameters; not from this project.")
    return checkpoint


def load_classifier(path: str | Path) -> Classifier:
    """Rebuild a classifier from its checkpoint alone, in evaluation mode.

    Raises:
        InputError: See :func:`read_checkpoint`; also if the weights do not fit the described network.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = Classifier(**checkpoint["hyper_parameters"])
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, RuntimeError) as error:
        raise InputError(f"checkpoint={path}: does not describe a classifier of this version: {error}") from error
    return model.eval()


@torch.inference_mode()
def probabilities(network: Callable[[Tensor], Tensor], images: Tensor, precision: str, tta: str = "none") -> Tensor:
    """Class probabilities of one batch.

    Args:
        network: Maps uint8 (B, C, H, W) to logits (B, classes).
        images: uint8 (B, H, W, C), on the network's device.
        precision: ``32-true`` or ``bf16-mixed``.
        tta: ``none``; ``mirror`` for the mirror image alone; ``flip`` for the mean over both (the report's section on
            TTA).

    Returns:
        float32 (B, classes).
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        views = [images] if tta != "mirror" else []
        views += [images.flip(2)] if tta != "none" else []
        softmax = [network(view.permute(0, 3, 1, 2)).float().softmax(dim=1) for view in views]
    return torch.stack(softmax).mean(dim=0)


def predict_all(
    model: Classifier,
    batches: Iterable[Batch],
    precision: str,
    tta: str = "none",
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Class probabilities of all batches: float32 (N, classes).

    Where many processes share the job, each takes every n-th batch, and all get the whole.

    Args:
        model: In evaluation mode, on its device.
        batches: Images and labels, as the data module hands them out.
        precision: ``32-true`` or ``bf16-mixed``.
        tta: ``none``, ``mirror`` or ``flip``.
        progress: Called with the number of images after each batch.
    """
    found = {}
    for index, (images, _) in enumerate(batches):
        if index % distributed.world_size() == distributed.rank():
            found[index] = probabilities(model.network, images.to(model.device), precision, tta)
        if progress is not None:
            progress(len(images))
    # Read from the device at the end alone: to read is to wait.
    rows = distributed.gather({index: part.cpu() for index, part in found.items()})
    return np.asarray(torch.cat(rows).numpy(), dtype=np.float32)
