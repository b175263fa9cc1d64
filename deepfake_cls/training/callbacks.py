"""Lightning callbacks: a clean stop on signals, checkpoints, curves and images for TensorBoard, the progress bar."""

from __future__ import annotations

import io
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchvision.utils import make_grid

from deepfake_cls import distributed
from deepfake_cls.errors import Interrupted
from deepfake_cls.figures import confusion_figure
from deepfake_cls.files import write_atomically
from deepfake_cls.training.module import Classifier

# Signals within this time count as one: a signal to a sweep can reach a job twice, directly and through its parent.
REPEAT_SECONDS = 0.5


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints atomically, so that the file of an earlier epoch stays until the new one is complete.

    Lightning writes into the system's folder of temporary files, and copies the file if that is on another disk.

    Args:
        folder: The folder of all checkpoints, as messages show it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one checkpoint; Lightning calls this in rank 0 only."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        file = self.folder / Path(path).name
        write_atomically(file, buffer.getbuffer(), "choose another folder with run_dir=PATH")


class Checkpoint(ModelCheckpoint):
    """A ModelCheckpoint that keeps its state if the run resumes in another folder.

    Lightning discards the best score if ``dirpath`` changes, so that a worse epoch could replace the best one.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with all paths in this run's folder."""
        dirpath = str(self.dirpath)

        def in_dirpath(path: str) -> str:
            return str(Path(dirpath) / Path(path).name) if path else path

        state = {**state_dict, "dirpath": dirpath}
        for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
            state[key] = in_dirpath(state[key])
        state["best_k_models"] = {in_dirpath(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)


class LastCheckpoint(Checkpoint):
    """The checkpoint that a run resumes from, saved after an epoch. Saving takes at most a tenth of the training time.

    ModelCheckpoint has only fixed intervals, but on a fast GPU an epoch takes only as long as saving a few checkpoints.

    Args:
        path: The file.
        options: Arguments of ``ModelCheckpoint``.

    Attributes:
        requested: Save after this epoch in any case.
        saved_epoch: The last epoch that was saved, from 0; None where this process has saved none.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(dirpath=path.parent, filename=path.stem, **options)
        self.path, self.requested = path, False
        self.saved_epoch: int | None = None
        self._saved_at, self._duration = 0.0, 0.0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if the last epoch is done, a checkpoint is requested, or enough time has passed."""
        started = time.monotonic()
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        due = last_epoch or self.requested or started - self._saved_at >= 9 * self._duration
        if not distributed.all_reduce_max(due):  # all processes take part in saving, or none
            return
        super().on_validation_end(trainer, pl_module)
        self.saved_epoch = trainer.current_epoch
        self._saved_at = time.monotonic()
        self._duration = self._saved_at - started


class AveragedWeights(WeightAveraging):
    """The exponential moving average of all weights and buffers over the steps, which is validated and saved.

    A checkpoint has the averaged weights in ``state_dict``, and those of the last step in ``current_model_state``.

    Args:
        decay: Weight of the previous average in each step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class StopCleanly(L.Callback):
    """Save a checkpoint between two steps after SIGTERM or Ctrl-C, and stop; a second Ctrl-C stops at once.

    The resumed run equals an uninterrupted one bit for bit. A stop at the last batch of an epoch waits for the
    validation, since a run that resumes after that batch would skip it. With several processes, a signal to one of them
    stops all after the same batch.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self.received: int | None = None
        self._received_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace Lightning's signal handlers; at the end of ``fit``, Lightning restores those from before it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        repeated = self.received is not None and time.monotonic() - self._received_at > REPEAT_SECONDS
        if repeated and distributed.world_size() == 1:  # torchrun repeats each signal, also one that all received
            raise KeyboardInterrupt
        if self.received is None:
            self._received_at = time.monotonic()
        self.received, self.last.requested = number, True
        print("\nStopping after this batch; a second signal stops at once.", flush=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the last epoch was saved; otherwise the run stops after this epoch's first batch."""
        number = distributed.all_reduce_max(self.received or 0)
        if number and self.last.path.exists() and self.last.saved_epoch in (None, trainer.current_epoch - 1):
            self._stop(number, f"after epoch {trainer.current_epoch} of {trainer.max_epochs}")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the checkpoint and stop."""
        if trainer.is_last_batch:
            return
        number = distributed.all_reduce_max(self.received or 0)
        if number:
            trainer.save_checkpoint(self.last.path)
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self._stop(number, f"in {epoch}, step {batch_idx + 1} of {trainer.num_training_batches}")

    def _stop(self, number: int, position: str) -> None:
        raise Interrupted(
            number, f"Stopped {position}; checkpoint: {self.last.path}. The same command resumes from it."
        )


class Curves(L.Callback):
    """Loss and learning rate of every n-th training step, for the logger.

    ``self.log`` would read the loss from the GPU at each logged step, and so wait for the GPU. Here losses stay on the
    GPU until they are written, once a second. With several processes, the loss is that of rank 0's share.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._points: list[tuple[int, Tensor, float]] = []  # step, loss, learning rate
        self._rate = 0.0
        self._written_at = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the step's learning rate, before the schedule changes it."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a point; once a second, write the points."""
        assert isinstance(pl_module, Classifier)
        if trainer.global_step % self.every == 0:
            # Loggers count steps from 0.
            self._points.append((trainer.global_step - 1, pl_module.last_loss, self._rate))
        if time.monotonic() - self._written_at >= 1:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's last points."""
        self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write the last points of a run that is stopped."""
        with suppress(Exception):  # from a GPU that has failed, losses cannot be read; the first error is raised
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self._points and trainer.logger is not None:
            losses = torch.stack([loss for _, loss, _ in self._points]).tolist()
            for (step, _, rate), loss in zip(self._points, losses, strict=True):
                trainer.logger.log_metrics({"train/loss": loss, "train/lr": rate}, step)
            trainer.logger.save()
        self._points.clear()
        self._written_at = time.monotonic()


class Pictures(L.Callback):
    """The first augmented batch, and the confusion matrix of each epoch, in TensorBoard."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the first batch of a run as the network receives it."""
        if trainer.global_step > 0 or not isinstance(trainer.logger, TensorBoardLogger):
            return
        assert isinstance(pl_module, Classifier)
        images = pl_module.augmented(batch, trainer.current_epoch, batch_idx).images[:16]
        grid = make_grid(images[..., :3].permute(0, 3, 1, 2), nrow=8, padding=2, pad_value=255)
        trainer.logger.experiment.add_image("augmented batch", grid, 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the confusion matrix; callbacks run before the module resets it."""
        if not isinstance(trainer.logger, TensorBoardLogger):
            return
        assert isinstance(pl_module, Classifier)
        counts = pl_module.confusion.compute().cpu().numpy()
        figure = confusion_figure(counts, pl_module.classes)
        trainer.logger.experiment.add_figure("confusion", figure, trainer.current_epoch)


class ProgressBar(RichProgressBar):
    """Lightning's bar with loss, validation accuracy and images per second, updated once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._updated_at, self._last_metrics = -1.0, dict[str, Any]()

    def _get_train_description(self, current_epoch: int) -> str:
        """The bar's text, as wide as that of the validation's bar; Lightning's own counts epochs from 0."""
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}".ljust(len(self.validation_description))

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The numbers that the bar shows."""
        assert isinstance(pl_module, Classifier)
        if trainer.is_last_batch or time.monotonic() - self._updated_at >= 1:
            metrics = super().get_metrics(trainer, pl_module)
            metrics.pop("v_num", None)
            self._last_metrics = {
                "loss": pl_module.last_loss.item(),
                "images/s": pl_module.images_per_second(),
                **metrics,
            }
            self._updated_at = time.monotonic()
        return self._last_metrics
