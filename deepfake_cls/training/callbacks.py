"""Lightning callbacks: a clean stop on signals, curves and pictures for TensorBoard, the progress bar."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.utils import make_grid

from deepfake_cls import distributed
from deepfake_cls.errors import Interrupted
from deepfake_cls.figures import confusion_figure
from deepfake_cls.training.module import Classifier

# A stop that is sent to all processes of a sweep comes twice to a job, once through its parent: that is one request.
REPEAT_SECONDS = 0.5


class StopCleanly(L.Callback):
    """Turn SIGTERM and Ctrl-C into a checkpoint between two steps; a second Ctrl-C stops at once.

    A stop that comes at the last batch of an epoch waits for the epoch's validation: it would be lost otherwise, and
    with it a chance at the best checkpoint. So the resumed run equals an uninterrupted one bit for bit.

    Where many processes share the job, a signal to one of them stops all after the same batch.

    Args:
        last: Writes the checkpoint after an epoch.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last, self.checkpoint = last, last.path
        self.received: int | None = None
        self._received_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which at the end of the fit restores the handlers from before it."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None and time.monotonic() - self._received_at > REPEAT_SECONDS
        if again and distributed.world_size() == 1:  # torchrun sends every signal on, also one that came to all
            raise KeyboardInterrupt
        if self.received is None:
            self._received_at = time.monotonic()
        self.received, self.last.wanted = number, True
        print("\nStopping after this batch; once more stops at once.", flush=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave, if the last epoch was kept; else after this epoch's first batch."""
        number = distributed.all_reduce_max(self.received or 0)
        before = trainer.current_epoch - 1
        if number and self.checkpoint.exists() and self.last.kept in (None, before):
            raise Interrupted(
                number,
                f"Stopped after epoch {trainer.current_epoch} of {trainer.max_epochs}; checkpoint: {self.checkpoint}."
                " The same command resumes from it.",
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint and leave."""
        if trainer.is_last_batch:
            return
        number = distributed.all_reduce_max(self.received or 0)
        if not number:
            return
        trainer.save_checkpoint(self.checkpoint)
        raise Interrupted(
            number,
            f"Stopped in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {batch_idx + 1} of"
            f" {trainer.num_training_batches}; checkpoint: {self.checkpoint}. The same command resumes from it.",
        )


class Curves(L.Callback):
    """Loss and learning rate in TensorBoard, and nothing that makes the host wait for a GPU more than once a second.

    To read a number from a GPU is to wait until all its work is done, so losses stay there until they are written. Of
    many processes rank 0 writes the loss of its own share.

    Args:
        every: Steps between two points.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._steps: list[int] = []
        self._losses: list[Tensor] = []
        self._rates: list[float] = []
        self._rate = 0.0
        self._written = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step's learning rate, before the schedule goes on."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep a point, and write what there is after a second."""
        assert isinstance(pl_module, Classifier)
        if trainer.global_step % self.every == 0:
            self._steps.append(trainer.global_step - 1)  # steps count from 0, as Lightning counts them elsewhere
            self._losses.append(pl_module.last_loss)
            self._rates.append(self._rate)
        if time.monotonic() - self._written >= 1:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's last points."""
        self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Lose no point of a run that is stopped."""
        with suppress(RuntimeError):  # a device that has failed gives nothing back
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self._steps and trainer.logger is not None:
            losses = torch.stack(self._losses).tolist()
            for step, loss, rate in zip(self._steps, losses, self._rates, strict=True):
                trainer.logger.log_metrics({"train/loss": loss, "train/lr": rate}, step)
            trainer.logger.save()
        for points in (self._steps, self._losses, self._rates):
            points.clear()
        self._written = time.monotonic()


class Checkpoint(ModelCheckpoint):
    """Lightning's, but for a run whose folder was moved, or which goes on in another folder.

    Lightning would then forget which epoch was best, and a worse one could take its place.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state with its paths in this run's folder."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path else path

        paths = ("best_model_path", "last_model_path", "kth_best_model_path")
        state = {**state_dict, **{key: moved(state_dict[key]) for key in paths}, "dirpath": here}
        state["best_k_models"] = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state)


class LastCheckpoint(Checkpoint):
    """The checkpoint to go on from, written after each epoch, but for a tenth of the time at most.

    On a fast GPU an epoch takes about as long as a few of its checkpoints. What a killed run has to do again is then
    less than ten times what a checkpoint takes.

    Args:
        path: The file.
        more: Of :class:`Checkpoint`.

    Attributes:
        wanted: Write at the next opportunity.
        kept: The last epoch that was written, from 0; None where this process has written none.
    """

    def __init__(self, path: Path, **more: Any) -> None:
        super().__init__(dirpath=path.parent, filename=path.stem, **more)
        self.path, self.wanted = path, False
        self.kept: int | None = None
        self._ended, self._took = 0.0, 0.0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write, if it is time."""
        started = time.monotonic()
        over = trainer.current_epoch + 1 == trainer.max_epochs
        due = over or self.wanted or started - self._ended >= 9 * self._took
        if not distributed.all_reduce_max(due):  # all processes take part in it, or none
            return
        super().on_validation_end(trainer, pl_module)
        self.kept = trainer.current_epoch
        self._ended = time.monotonic()
        self._took = self._ended - started


class Pictures(L.Callback):
    """The confusion matrix of each epoch and the first augmented batch, in TensorBoard."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the first batch of a run as the network sees it."""
        if trainer.global_step > 0 or not isinstance(trainer.logger, TensorBoardLogger):
            return
        assert isinstance(pl_module, Classifier)
        images = pl_module.augmented(batch, trainer.current_epoch, batch_idx).images[:16]
        grid = make_grid(images[..., :3].permute(0, 3, 1, 2), nrow=8, padding=2, pad_value=255)
        trainer.logger.experiment.add_image("augmented batch", grid, 0)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the confusion matrix; callbacks run before the module forgets it."""
        if trainer.sanity_checking or not isinstance(trainer.logger, TensorBoardLogger):
            return
        assert isinstance(pl_module, Classifier)
        counts = pl_module.confusion.compute().cpu().numpy()
        figure = confusion_figure(counts, pl_module.classes)
        trainer.logger.experiment.add_figure("confusion", figure, trainer.current_epoch)


class ProgressBar(RichProgressBar):
    """Lightning's bar with loss, validation accuracy and images a second, read once a second."""

    def __init__(self) -> None:
        super().__init__()
        self._read, self._shown = -1.0, dict[str, Any]()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        assert isinstance(pl_module, Classifier)
        if trainer.is_last_batch or time.monotonic() - self._read >= 1:
            metrics = super().get_metrics(trainer, pl_module)
            metrics.pop("v_num", None)  # the version number says nothing here
            self._shown = {"loss": pl_module.last_loss.item(), "images/s": pl_module.images_per_second(), **metrics}
            self._read = time.monotonic()
        return self._shown
