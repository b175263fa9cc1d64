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
from deepfake_cls.escaping import printable
from deepfake_cls.hardware import synchronise
from deepfake_cls.inference import pooled
from deepfake_cls.models import build
from deepfake_cls.randomness import derive, generator, to_device
from deepfake_cls.training.augment import Batch, Pipeline
from deepfake_cls.training.dropout import KeyedDropout


class Classifier(L.LightningModule):
    """Train a registered network on augmented batches.

    All arguments are plain values, which the checkpoint contains. So a checkpoint that is read with
    ``weights_only=True`` is enough to rebuild the network.

    Args:
        classes: Class names, in label order.
        size: [height, width] of the training images.
        channels: ``RGB`` or ``RGBA``.
        model: ``name`` of the registered network and its ``args``.
        width: Channels of the stem, for networks that have this argument.
        dropout: Dropout probability of the head, for networks that have this argument.
        lr: Peak learning rate.
        epochs: Number of epochs.
        steps: Optimiser steps in an epoch.
        seed: Seed of the weights and of all random numbers.
        augment: Strengths of each augmentation, in order.
        recipe: The optimisation (``RecipeConfig``).
        identity: The run key.
        resize: The training's ``data.resize``; None for a layout without this key.
        real: The class of images that no generator made; None if there is none.
        class_weights: Weight of each class in the training loss, see :meth:`loss`; None: all are 1.
        crops: The fields of :class:`~deepfake_cls.crops.Crops`; None for whole images.
        reencode: The training's ``data.reencode``.
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
        resize: bool | None = None,
        real: str | None = None,
        class_weights: list[float] | None = None,
        crops: dict[str, Any] | None = None,
        reencode: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.classes, self.seed, self.lr, self.epochs, self.steps = classes, seed, lr, epochs, steps
        self.recipe = recipe
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
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
        # Checks of each batch would make the CPU wait for the GPU; an infinite loss is detected after the epoch.
        # Without these checks MeanMetric ignores weights (torchmetrics 1.9), so it gets one value for each image.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(len(classes), validate_args=False)
        self.last_loss = torch.zeros(())
        self.first_step: float | None = None
        self._epoch_started = time.perf_counter()
        self._images_done = 0

    def logits(self, images: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Logits (B, classes), float32 or float64.

        Args:
            images: uint8 (B, H, W, C).
            image_features: float32 (B, E), for networks that have them.
        """
        inputs = [images.permute(0, 3, 1, 2)] + ([] if image_features is None else [image_features])
        output: Any = self.network(*inputs)
        expected = (len(images), len(self.classes))
        if not isinstance(output, Tensor) or output.shape != expected:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"model.name={self.hparams['model']['name']}: forward returned {shape}; expected {expected},"
                " a logit for each image and class."
            )
        logits: Tensor = output.to(torch.promote_types(output.dtype, torch.float32))
        return logits

    def augmented(self, batch: ImageBatch, epoch: int, step: int) -> Batch:
        """This process's share of a batch, augmented.

        Args:
            batch: The global batch, or the rows of it that :meth:`needed` returns.
            epoch: Epoch, from 0.
            step: Batch within the epoch, from 0.
        """
        targets = self._targets(batch.labels)
        augmented = Batch(batch.images, targets, torch.from_numpy(batch.indices), batch.image_features)
        drawn = self._draw(augmented, epoch, step)
        share = _share_rows(len(targets))
        if batch.rows is None:
            augmented = self.pipeline.apply(augmented, drawn)
        else:
            rows = torch.from_numpy(batch.rows)
            targets, indices = targets[to_device(rows, targets.device)], augmented.indices[rows]
            augmented = self.pipeline.apply(replace(augmented, targets=targets, indices=indices), drawn, rows)
            share = torch.searchsorted(rows, share)
        return augmented if len(share) == len(augmented) else augmented.rows(share)

    def needed(
        self, indices: NDArray[np.int64], labels: NDArray[np.int64], epoch: int, step: int
    ) -> NDArray[np.int64] | None:
        """The rows, int64 (R,), of a batch that this process must read to compute its share; None for all."""
        shape = (len(indices), *self.hparams["size"], len(self.hparams["channels"]))
        images = torch.empty(shape, dtype=torch.uint8, device="meta")
        batch = Batch(images, self._targets(torch.from_numpy(labels)), torch.from_numpy(indices))
        rows = self.pipeline.needed(self._draw(batch, epoch, step), _share_rows(len(indices)))
        return None if rows is None else rows.numpy()

    def _targets(self, labels: Tensor) -> Tensor:
        # F.one_hot reads the smallest and the largest label, which makes the CPU wait for the GPU.
        return (labels[:, None] == torch.arange(len(self.classes), device=labels.device)).double()

    def _draw(self, batch: Batch, epoch: int, step: int) -> list[Any]:
        progress = (epoch * self.steps + step) / (self.epochs * self.steps)
        return self.pipeline.draw(batch, epoch, step, progress)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The mean loss over a batch.

        With several processes, each returns the loss of its share. It is scaled so that DDP, which averages gradients
        over the processes, gets the gradients of the batch.
        """
        count, epoch = len(batch.labels), self.current_epoch
        self._images_done += count
        share = self.augmented(batch, epoch, batch_idx)
        self._dropout.begin(generator(self.seed, "dropout", epoch, batch_idx), count, distributed.share(count))
        # For layers that draw from the global generator, such as stochastic depth.
        torch.manual_seed(derive(self.seed, "network", epoch, batch_idx, distributed.rank()))
        logits = self._training_logits(share)
        if len(share) == 0:  # DDP needs gradients from each process; these are 0
            zero: Tensor = logits.sum()
            return zero
        loss = self.loss(logits, share.targets)
        self.last_loss = loss.detach()
        self.train_loss.update(self.last_loss.expand(len(share)))
        return loss * (len(share) * distributed.world_size() / count)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of a batch with label smoothing and the weights of the classes.

        The definition is that of ``torch.nn.CrossEntropyLoss`` for probabilities as targets:
        −Σ_i Σ_c w_c q_ic log p_ic / B, where q are the smoothed targets. So after CutMix each class counts with its
        own weight. The divisor is the number of images, not the sum of their weights as for targets that are labels:
        balanced weights have the mean 1 over the training images, and the processes can share a batch.

        Args:
            logits: (B, C).
            targets: (B, C), a probability for each class.
        """
        weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        smoothing = self.recipe["label_smoothing"]
        return F.cross_entropy(logits, targets.to(logits.dtype), weight=weight, label_smoothing=smoothing)

    def _training_logits(self, share: Batch) -> Tensor:
        try:
            return self.logits(share.images, share.image_features)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "batch_size: a batch has one image, and its feature maps have one pixel, so batch normalisation has no"
                " variance. Choose a batch_size that leaves two or more images for the last batch."
            ) from error

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Update loss and confusion matrix. Each of n processes takes every n-th batch."""
        if batch_idx % distributed.world_size() == distributed.rank():
            features = batch.image_features
            if features is not None:
                features = features.repeat_interleave(batch.crops, dim=0)
            logits = pooled(self.logits(batch.images, features), batch.crops)
            self.val_loss.update(F.cross_entropy(logits, batch.labels).expand(len(batch.labels)))
            self.confusion.update(logits, batch.labels)

    def on_train_start(self) -> None:
        """Start the clock, also for a run that resumes within an epoch."""
        self._epoch_started = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Reset the clock and the image count."""
        self._epoch_started, self._images_done = time.perf_counter(), 0

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Time from the start of the epoch to the end of the first step: loading, compilation and warm-up included."""
        if self.first_step is None:
            synchronise(self.device)
            self.first_step = time.perf_counter() - self._epoch_started

    def images_per_second(self) -> float:
        """Training rate of this epoch until now, for display: it waits for the GPU."""
        synchronise(self.device)
        return self._images_done / max(time.perf_counter() - self._epoch_started, 1e-9)

    def on_validation_epoch_end(self) -> None:
        """Log accuracy, loss and recall, and add the epoch to the history."""
        confusion = self.confusion.compute().float()
        val_loss = self.val_loss.compute()
        if not bool(torch.isfinite(val_loss)):
            raise InputError(
                f"Training diverged: the validation loss is not finite after epoch {self.current_epoch + 1}."
                f" Lower the learning rate (lr={self.lr:g})."
            )
        correct = confusion.diagonal()
        accuracy = correct.sum() / confusion.sum()
        recall = correct / confusion.sum(dim=1).clamp(min=1)
        self.log("val_acc", accuracy, prog_bar=True, logger=False)
        self.log("val/accuracy", accuracy)
        self.log("val/loss", val_loss)
        for name, value in zip(self.classes, recall, strict=True):
            self.log(f"recall/{printable(name)}", value)
        self.history.append(
            {
                "epoch": float(self.current_epoch),
                "train_loss": float(self.train_loss.compute()),
                "val_loss": float(val_loss),
                "val_acc": float(accuracy),
                "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
                "seconds": time.perf_counter() - self._epoch_started,
            }
        )
        self.train_loss.reset()
        self.val_loss.reset()

    def on_validation_end(self) -> None:
        """Reset the confusion matrix, after the callbacks have logged it."""
        self.confusion.reset()

    def configure_optimizers(self) -> Any:
        """AdamW with OneCycleLR: cosine warm-up from lr/25, then cosine decay (the paper's table 3)."""
        decay = self.recipe["weight_decay"]
        parameters: Any = self.parameters()
        if not self.recipe.get("decay_all", True):
            # Biases, and weights of normalisation layers, are vectors.
            vectors = [p for p in self.parameters() if p.ndim < 2]
            matrices = [p for p in self.parameters() if p.ndim >= 2]
            parameters = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=decay, fused=True)
        warmup, total = self.recipe["warmup"], self.epochs * self.steps
        if abs(warmup * total - 1) < 1e-6:
            warmup *= 1 + 1e-6  # torch divides by (steps of warm-up − 1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=self.lr, total_steps=total, pct_start=warmup)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the learning curve."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the learning curve."""
        self.history = list(checkpoint.get("history", []))


def _share_rows(count: int) -> Tensor:
    """Rows of a batch of ``count`` images that this process trains on: int64 (R,)."""
    return torch.arange(count)[distributed.share(count)]
