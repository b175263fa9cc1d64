"""The LightningModule: a registered network, its loss on augmented batches, its optimiser and its learning curve."""

from __future__ import annotations

import time
from dataclasses import replace
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
from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import synchronise
from deepfake_cls.models import build
from deepfake_cls.randomness import derive, generator, to_device
from deepfake_cls.training.augment import Batch, Pipeline
from deepfake_cls.training.dropout import KeyedDropout


class Classifier(L.LightningModule):
    """A network and its training.

    All arguments are plain numbers, words, lists and dicts, and travel in the checkpoint: a checkpoint alone
    rebuilds the network, under ``weights_only=True``.

    Args:
        classes: Names of the classes, in label order.
        size: [height, width] of the training images.
        channels: ``RGB`` or ``RGBA``.
        model: ``name`` of the registered network and its own ``args``.
        width: Channels of the stem, for networks that take it.
        dropout: Dropout probability of the head, for networks that take it.
        lr: Peak learning rate.
        epochs: Of the whole training.
        steps: Optimiser steps of an epoch.
        seed: Seed of weights and of every draw.
        augment: Strengths of each augmentation, in order.
        recipe: The fields of ``RecipeConfig``.
        identity: Key of the run that trains it.
    """

    def __init__(
        self,
        classes: list[str],
        size: list[int],
        channels: str,
        model: dict[str, Any],
        width: int,
        dropout: float,
        lr: float,
        epochs: int,
        steps: int,
        seed: int,
        augment: dict[str, Any],
        recipe: dict[str, Any],
        identity: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.classes, self.seed, self.lr, self.epochs, self.steps = classes, seed, lr, epochs, steps
        self.recipe = recipe
        self.network = build(
            model["name"],
            model["args"],
            in_channels=len(channels),
            num_classes=len(classes),
            width=width,
            dropout=dropout,
            seed=seed,
        )
        self.pipeline = Pipeline(augment, seed)
        self._dropout = KeyedDropout(self.network)
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

    def logits(self, images: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Logits (B, classes), float32 or wider.

        Args:
            images: uint8 (B, H, W, C).
            image_features: float32 (B, E), for networks that have such features; None leaves them to the network.
        """
        planes = images.permute(0, 3, 1, 2)
        found: Any = self.network(planes) if image_features is None else self.network(planes, image_features)
        expected = (len(images), len(self.classes))
        if not isinstance(found, Tensor) or found.shape != expected:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"model.name={self.hparams['model']['name']}: forward returned {shape}; expected {expected},"
                " a logit for each image and class."
            )
        logits: Tensor = found.to(torch.promote_types(found.dtype, torch.float32))
        return logits

    def _step(self, stage: str, batch: ImageBatch, step: int) -> Tensor:
        """One batch of any stage: augmented in training, as it is otherwise.

        Where many processes share the job, each trains on its share of every batch and validates every n-th batch.

        Args:
            stage: ``train`` or ``val``.
            batch: The global batch, or the rows of it that this process needs.
            step: Index of the batch within the epoch.

        Returns:
            The mean loss over the batch; of many processes each returns its part of it, so scaled that their mean,
            which is what DDP makes of the gradients, is that of the batch.
        """
        labels = batch.labels
        if stage == "val":
            logits = self.logits(batch.images, batch.image_features)
            loss = F.cross_entropy(logits, labels)
            self.val_loss.update(loss.expand(len(labels)))
            self.confusion.update(logits, labels)
            return loss
        own = distributed.share(len(labels))
        seen = self.augmented(batch, self.current_epoch, step)
        self._dropout.begin(generator(self.seed, "dropout", self.current_epoch, step), len(labels), own)
        # For networks whose layers draw for themselves, such as stochastic depth.
        torch.manual_seed(derive(self.seed, "network", self.current_epoch, step, distributed.rank()))
        logits = self.logits(seen.images, seen.image_features)
        count = len(seen)
        if count == 0:  # the other processes wait for this one's gradients, which are 0
            nothing: Tensor = logits.sum()
            return nothing
        loss = F.cross_entropy(logits, seen.targets.to(logits.dtype), label_smoothing=self.recipe["label_smoothing"])
        self.last_loss = loss.detach()
        self.train_loss.update(self.last_loss.expand(count))
        return loss * (count * distributed.world_size() / len(labels))

    def augmented(self, batch: ImageBatch, epoch: int, step: int) -> Batch:
        """This process's share of a batch, as the network sees it in training.

        Args:
            batch: The global batch, or the rows of it that :meth:`needed` gives.
            epoch: Epoch, from 0.
            step: Batch within the epoch, from 0.
        """
        targets = self._targets(batch.labels)
        whole = Batch(batch.images, targets, torch.from_numpy(batch.indices), batch.image_features)
        drawn = self._draw(whole, epoch, step)
        own = torch.arange(len(targets))[distributed.share(len(targets))]
        if batch.rows is None:
            seen = self.pipeline.apply(whole, drawn)
        else:
            rows = torch.from_numpy(batch.rows)
            part = replace(whole, targets=targets[to_device(rows, targets.device)], indices=whole.indices[rows])
            seen = self.pipeline.apply(part, drawn, rows)
            own = torch.searchsorted(rows, own)
        return seen if len(own) == len(seen) else seen.rows(own)

    def needed(
        self, indices: NDArray[np.int64], labels: NDArray[np.int64], epoch: int, step: int
    ) -> NDArray[np.int64] | None:
        """Rows of a batch whose pixels this process's share depends on; None stands for all.

        Args:
            indices: int64 (B,), the images of the global batch.
            labels: int64 (B,).
            epoch: Epoch, from 0.
            step: Batch within the epoch, from 0.
        """
        shape = (len(indices), *self.hparams["size"], len(self.hparams["channels"]))
        images = torch.empty(shape, dtype=torch.uint8, device="meta")
        targets = self._targets(torch.from_numpy(labels))
        drawn = self._draw(Batch(images, targets, torch.from_numpy(indices)), epoch, step)
        rows = self.pipeline.needed(drawn, torch.arange(len(indices))[distributed.share(len(indices))])
        return None if rows is None else rows.numpy()

    def _targets(self, labels: Tensor) -> Tensor:
        # F.one_hot reads the smallest and the largest label, for which the host would wait on some devices.
        return (labels[:, None] == torch.arange(len(self.classes), device=labels.device)).double()

    def _draw(self, batch: Batch, epoch: int, step: int) -> list[Any]:
        done = (epoch * self.steps + step) / (self.epochs * self.steps)
        return self.pipeline.draw(batch, epoch, step, done)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """One optimiser step's loss."""
        loss = self._step("train", batch, batch_idx)
        self._images_done += len(batch.labels)
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

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
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
        """AdamW with OneCycleLR: cosine, warm-up over a share of all steps, from lr/25 (the paper's table 3)."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.lr, weight_decay=self.recipe["weight_decay"], fused=True
        )
        warmup, total = self.recipe["warmup"], self.epochs * self.steps
        if abs(warmup * total - 1) < 1e-6:
            warmup *= 1 + 1e-6  # torch divides by (steps of warm-up − 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=self.lr, total_steps=total, pct_start=warmup)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the learning curve with the weights, so that a resumed run has all of it."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the learning curve where it stopped."""
        self.history = list(checkpoint.get("history", []))
