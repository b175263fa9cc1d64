"""One training from start to record: the LightningModule, Lightning's trainer, scores of the last weights."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from deepfake_cls import distributed
from deepfake_cls.checkpoints import load_model, read_checkpoint, weights, with_weights
from deepfake_cls.config import TrainConfig
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.data.sources import crops_of
from deepfake_cls.errors import InputError, writing
from deepfake_cls.files import write_atomically
from deepfake_cls.hardware import Hardware
from deepfake_cls.inference import Outputs, predict_all
from deepfake_cls.jobs import restore_faulthandler
from deepfake_cls.records import Record, read_predictions, write_record
from deepfake_cls.run_folders import Run
from deepfake_cls.stats.metrics import score
from deepfake_cls.training.batch_norm import layers, recompute
from deepfake_cls.training.callbacks import (
    AveragedWeights,
    Checkpoint,
    CheckpointFiles,
    Curves,
    LastCheckpoint,
    Pictures,
    ProgressBar,
    StopCleanly,
)
from deepfake_cls.training.image_features import prepare
from deepfake_cls.training.loggers import build_logger, log_hyperparameters
from deepfake_cls.training.module import Classifier
from deepfake_cls.training.results import write_outputs, write_results


def fit_and_score(
    config: TrainConfig, data: ImageData, hardware: Hardware, run: Run, digests: dict[str, str], started: float
) -> Record | None:
    """Train, score the last weights, and write the record; ``started`` is the command's ``time.perf_counter``.

    Returns:
        The record; None in processes of rank 1 and above.
    """
    model = build_model(config, data, run)
    resume = resumable(config, run, model)
    if config.init is not None and resume is None:
        start_from(config.init, model)
    pixels = (data.train_pixels, data.validation_pixels)
    prepare(model.network, asdict(config.model), *pixels, fit=resume is None, force=config.force)
    if distributed.world_size() > 1:
        data.needed, data.scored = model.needed, _scored_rows
    if config.trainer.compile:
        torch.compiler.reset()  # torch limits the compilations of a function over all jobs of a process
        model.network.compile(dynamic=False)  # in place, so that names in checkpoints have no prefix
    trainer = build_trainer(config, hardware, run, len(data.train_dataloader()), resume is not None)
    setup = time.perf_counter() - started
    with writing(run.path, also_reads=True):
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    restore_faulthandler()

    evaluate_started = time.perf_counter()
    model.to(torch.device(hardware.device)).eval()
    # Scores are those of evaluate and predict, which compile nothing.
    with torch.compiler.set_stance("force_eager") if config.trainer.compile else nullcontext():
        recompute_statistics(config, data, hardware, run, model)
        validation, clean, recomputed = score_all(config, data, model, hardware)
    if distributed.rank() != 0:
        return None
    seconds = {"setup": setup, **_fit_seconds(model), "evaluate": time.perf_counter() - evaluate_started}
    record = write_results(config, data, hardware, run, model.history, validation, clean, recomputed)
    record.digests = digests
    record.seconds = {"total": time.perf_counter() - started, **seconds}
    assert trainer.logger is not None
    with writing(run.path, also_reads=True):
        log_hyperparameters(trainer.logger, record, trainer.global_step)
    write_record(run.path, record)
    return record


def build_model(config: TrainConfig, data: ImageData, run: Run) -> Classifier:
    """The LightningModule of a configuration, with its initial weights."""
    weights = None
    if config.recipe.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, len(data.manifest.classes))
    crops = crops_of(config.data)
    return Classifier(
        classes=list(data.manifest.classes),
        size=list(data.train.store.size),
        channels=config.channels,
        model=asdict(config.model),
        width=config.width,
        dropout=config.dropout,
        lr=config.lr,
        epochs=config.epochs,
        steps=len(data.train_dataloader()),
        seed=config.seed,
        augment=dict(config.augment),
        recipe=asdict(config.recipe),
        identity=run.identity,
        resize=getattr(config.data, "resize", None),
        real=data.manifest.real,
        class_weights=weights,
        crops=None if crops is None else asdict(crops),
        reencode=getattr(config.data, "reencode", None),
    )


def balanced_weights(labels: NDArray[np.int64], classes: int) -> list[float]:
    """The weight n / (C n_c) of each of C classes, where n_c of the n labels are those of class c, at least 1."""
    counts = np.bincount(labels, minlength=classes)
    return [len(labels) / (classes * max(count, 1)) for count in counts.tolist()]


def start_from(path: str, model: Classifier) -> None:
    """Load the weights of a checkpoint whose names and shapes fit, and print which do not.

    If the checkpoint has other classes, the last layer is not loaded.

    Raises:
        InputError: If the file is no checkpoint of this project, or none of its weights fits.
    """
    checkpoint = read_checkpoint(path, "init")
    state = model.network.state_dict()
    loaded = {
        name: value for name, value in weights(checkpoint).items() if name in state and state[name].shape == value.shape
    }
    if list(checkpoint["hyper_parameters"]["classes"]) != model.classes:
        # Each row of the last layer belongs to a class.
        last = [name for name, module in model.network.named_modules() if isinstance(module, torch.nn.Linear)][-1:]
        loaded = {name: value for name, value in loaded.items() if name.rpartition(".")[0] not in last}
    if not any(value.ndim > 1 for value in loaded.values()):  # biases and counters fit many networks
        raise InputError(f"init={path}: none of its weights fits this network; use the model that it was trained as.")
    model.network.load_state_dict({**state, **loaded})
    print(f"init={path}: loaded {len(loaded)} of {len(state)} tensors.", flush=True)
    missing = [name for name in state if name not in loaded]
    if missing:
        print(f"  not loaded: {', '.join(missing)}", flush=True)


def resumable(config: TrainConfig, run: Run, model: Classifier) -> str | None:
    """The checkpoint to resume from; None for a run that starts from the beginning.

    Raises:
        InputError: If the checkpoint is damaged, or belongs to another run.
    """
    path = config.checkpoint or (str(run.last) if run.last.is_file() else None)
    if path is None:
        return None
    advice = ""
    if config.checkpoint is None:
        best_epoch = f"resume from its best epoch with checkpoint={run.best}, or " if run.best.is_file() else ""
        advice = f"It is this run's last checkpoint: {best_epoch}start again with force=true."
    checkpoint = read_checkpoint(path, advice=advice)
    saved = checkpoint["hyper_parameters"]
    if saved.get("identity") != run.identity:
        current = dict(model.hparams)
        differences = "; ".join(
            f"{key}={saved[key]} there, {value} here"
            for key, value in current.items()
            if key in saved and saved[key] != value
        )
        raise InputError(
            f"checkpoint={path}: belongs to another run ({differences}). Use the configuration of its training."
        )
    if missing := {"optimizer_states", "lr_schedulers", "loops"} - checkpoint.keys():
        raise InputError(
            f"checkpoint={path}: lacks {', '.join(sorted(missing))}, so a training cannot resume from it; give"
            " last.ckpt of the run, or start again with force=true."
        )
    best = Path(path).with_name(run.best.name)
    if distributed.rank() == 0 and best.is_file() and not run.best.exists():
        # If the run resumes in another folder, its best epoch so far is in the old one.
        write_atomically(run.best, best.read_bytes())
    print(f"Resuming from {path}.", flush=True)
    return path


def build_trainer(config: TrainConfig, hardware: Hardware, run: Run, steps: int, resumed: bool = False) -> L.Trainer:
    """Lightning's trainer with this project's callbacks; ``steps`` is the number of batches in an epoch."""
    _silence_lightning()
    options: dict[str, Any] = {
        "enable_version_counter": False,
        "save_on_train_epoch_end": False,
        "auto_insert_metric_name": False,
    }
    last = LastCheckpoint(run.last, **options)
    callbacks: list[L.Callback] = [
        Curves(every=min(10, steps)),
        StopCleanly(last),
        Pictures(),
        Checkpoint(dirpath=run.best.parent, filename="best", monitor="val_acc", mode="max", **options),
        last,
    ]
    if config.recipe.ema > 0:
        callbacks.insert(0, AveragedWeights(config.recipe.ema))  # updates the average before a checkpoint is saved
    if config.trainer.progress:
        callbacks.append(ProgressBar())
    return L.Trainer(
        accelerator="gpu" if hardware.device == "cuda" else "cpu",
        devices=distributed.local_size(),
        num_nodes=distributed.world_size() // distributed.local_size(),
        sync_batchnorm=hardware.device == "cuda" and distributed.world_size() > 1,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=config.epochs,
        logger=build_logger(config.logger, run.path, resumed),
        callbacks=callbacks,
        plugins=[CheckpointFiles(run.best.parent)],
        enable_progress_bar=config.trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=1,  # avoids a warning; ``Curves`` logs per-step values
        benchmark=hardware.device == "cuda" and not config.trainer.deterministic,
        num_sanity_val_steps=0,
    )


def _silence_lightning() -> None:
    # Lightning sets its level when it is imported.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        ".*does not have many workers.*",  # one process that reads memory-mapped pixels needs no loader workers
        ".*sync_dist=True.*",  # values of an epoch are equal in all processes
        ".*`srun` command is available.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _scored_rows(
    indices: NDArray[np.int64], _labels: NDArray[np.int64], _epoch: int, step: int
) -> NDArray[np.int64] | None:
    """Rows of a validation batch that this process reads: all of every n-th batch, none of the others."""
    return None if step % distributed.world_size() == distributed.rank() else indices[:0]


def _fit_seconds(model: Classifier) -> dict[str, float]:
    epochs = [row["seconds"] for row in model.history]
    seconds = {"fit": sum(epochs), "per_epoch": statistics.median(epochs[1:] or epochs)}
    if model.first_step is not None:  # a run that resumes after its last epoch has no step
        seconds["first_step"] = model.first_step
    return seconds


def recompute_statistics(config: TrainConfig, data: ImageData, hardware: Hardware, run: Run, model: Classifier) -> None:
    """Recompute the statistics of batch normalisation, in the network and in ``last.ckpt``, if the recipe says so.

    The network has the weights to score: with averaged weights, Lightning has copied these into it. A run that is
    killed in between repeats this step and gets the same result.
    """
    source = config.recipe.batch_norm
    if source == "running" or not layers(model.network):
        return
    recompute(model, data.train_pixels, config.batch_size, hardware.precision, augmented=source == "augmented")
    if distributed.rank() == 0:
        saved = with_weights(read_checkpoint(run.last), model.network)
        CheckpointFiles(run.last.parent).save_checkpoint(saved, run.last)


def score_all(
    config: TrainConfig, data: ImageData, model: Classifier, hardware: Hardware
) -> tuple[Outputs, Outputs, Outputs | None]:
    """Run the network on the validation images, and on the training images without augmentation.

    Afterwards the network, but not its checkpoint, may have recomputed statistics of batch normalisation.

    Returns:
        The outputs of both, and those of the validation images with recomputed statistics of batch normalisation; the
        last is None if the network has no such statistics, or they are recomputed anyway.
    """
    device, precision = hardware.device, hardware.precision
    validation = predict_all(model.network, data.full_val_dataloader(), device, precision, flip=config.tta == "flip")
    clean = predict_all(model.network, data.clean_train_dataloader(), device, precision)
    recomputed = None
    if config.recipe.batch_norm == "running" and layers(model.network):
        recompute(model, data.train_pixels, config.batch_size, precision, augmented=True)
        recomputed = predict_all(model.network, data.full_val_dataloader(), device, precision)
    return validation, clean, recomputed


def add_flip(data: ImageData, hardware: Hardware, run: Run) -> Record:
    """Score a finished run with flip TTA from its checkpoint, and add that to its record and predictions.

    Raises:
        InputError: If the run's checkpoint is missing.
    """
    record = run.done
    assert record is not None
    if not run.last.is_file():
        raise InputError(
            f"{run.path}: has no scores for tta=flip, and its checkpoint {run.last} is missing; repeat the run"
            " with force=true."
        )
    model = load_model(run.last)
    model.network.to(hardware.device)
    outputs = predict_all(model.network, data.full_val_dataloader(), hardware.device, hardware.precision, flip=True)
    if distributed.rank() == 0:
        assert outputs.probs_flip is not None
        labels = data.validation.labels
        record.metrics["val_acc_flip"] = score(labels, outputs.probs_flip).metrics["acc"]
        if "val_acc_recomputed" in record.metrics:
            recomputed = read_predictions(run.path / "predictions.npz", "probs_recomputed")[2]
            outputs = replace(outputs, probs_recomputed=recomputed)
        path, groups = run.path / "predictions.npz", data.validation.groups
        write_outputs(path, data.validation.ids, labels, outputs, groups=groups)
        write_record(run.path, record)
    return record
