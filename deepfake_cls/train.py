"""Train a residual network: ``python -m deepfake_cls.train``, and ``-m lr=1e-4,3e-4,1e-3`` for a sweep."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_cls import distributed
from deepfake_cls.cli import main
from deepfake_cls.config import TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.jobs import restore_faulthandler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepfake_cls.data.datamodule import ImageData
    from deepfake_cls.hardware import Hardware
    from deepfake_cls.records import Record
    from deepfake_cls.runs import Run
    from deepfake_cls.training.module import Classifier

    Predictions = tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32]]


def check(config: TrainConfig) -> None:
    """Refuse values that no training can have.

    Raises:
        InputError: Naming the key, the value and what was expected.
    """
    if config.force and config.checkpoint is not None:
        raise InputError("force=true starts again from nothing, checkpoint=FILE goes on: give one of them.")
    recipe = config.recipe
    rules: list[tuple[str, Any, bool, str]] = [
        ("lr", config.lr, config.lr > 0, "a number above 0"),
        ("epochs", config.epochs, config.epochs >= 1, "1 or more"),
        ("width", config.width, config.width >= 1, "1 or more"),
        ("batch_size", config.batch_size, config.batch_size >= 2, "2 or more"),
        ("dropout", config.dropout, 0 <= config.dropout < 1, "0 or more, below 1"),
        ("tta", config.tta, config.tta in ("none", "flip"), "none or flip"),
        (
            "trainer.curve_images",
            config.trainer.curve_images,
            config.trainer.curve_images is None or config.trainer.curve_images >= 1,
            "1 or more, or null for all",
        ),
        ("channels", config.channels, config.channels in ("RGB", "RGBA"), "RGB or RGBA"),
        ("recipe.flip", recipe.flip, 0 <= recipe.flip <= 1, "a probability"),
        ("recipe.cutmix", recipe.cutmix, 0 <= recipe.cutmix <= 1, "a probability"),
        ("recipe.cutmix_alpha", recipe.cutmix_alpha, recipe.cutmix_alpha > 0, "a number above 0"),
        ("recipe.rotation", recipe.rotation, 0 <= recipe.rotation <= 180, "degrees, 0 to 180"),
        (
            "recipe.label_smoothing",
            recipe.label_smoothing,
            0 <= recipe.label_smoothing < 1,
            "0 or more, below 1",
        ),
        ("recipe.weight_decay", recipe.weight_decay, recipe.weight_decay >= 0, "0 or more"),
        ("recipe.warmup", recipe.warmup, 0 < recipe.warmup < 1, "a share between 0 and 1"),
        (
            "recipe.alpha_fill",
            recipe.alpha_fill,
            recipe.alpha_fill in ("mask", "constant"),
            "mask or constant",
        ),
    ]
    for key, value, good, expected in rules:
        if not good:
            raise InputError(f"{key}={value}: expected {expected}.")


def run(config: TrainConfig, sweep: bool) -> None:
    """Train, or go on with, one run; a finished one is left alone.

    Raises:
        InputError: If the configuration, the data or a checkpoint is wrong.
    """
    check(config)
    started = time.perf_counter()
    from deepfake_cls.data.sources import read_manifest

    manifest = read_manifest(config.data)  # before the slow imports: a wrong path is told at once
    manifest.require_classes()
    from deepfake_cls.data.datamodule import ImageData
    from deepfake_cls.data.images import fingerprint
    from deepfake_cls.hardware import choose, prepare_compiler
    from deepfake_cls.runs import claim, identity_of
    from deepfake_cls.summary import argument, data_arguments, print_run

    hardware = choose(config.trainer)
    if config.trainer.compile:
        prepare_compiler(hardware)
    if config.batch_size < 2 * hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: expected 2 or more for each of {hardware.processes} processes."
        )
    progress = config.trainer.progress
    curve = config.trainer.curve_images
    data = ImageData(
        manifest, config.data, config.channels, config.batch_size, config.seed, progress, curve, hardware.device
    )
    rest = len(data.train) % config.batch_size
    if hardware.device == "cuda" and 0 < rest < hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: the last batch of {len(data.train)} images would have {rest}, too few for"
            f" each of {hardware.processes} devices, which normalise together. Choose another batch size."
        )
    splits = {"train": data.train, "validation": data.validation}
    identity = identity_of("cnn", config, fingerprint(data.manifest, splits), hardware)
    with distributed.joined(hardware.device), claim("cnn", identity, config, sweep=sweep) as claimed:
        record = claimed.done
        if record is not None:
            print(f"{claimed.path}: already done; force=true repeats it.")
        else:
            print(f"{claimed.path}: {hardware.describe()}", flush=True)
            if config.channels == "RGBA" and not data.train.store.has_alpha:
                print("The images have no alpha channel: RGBA adds a constant plane of 255.")
            record = fit_and_score(config, data, hardware, claimed, started)
        if distributed.rank() != 0:
            return
        words = f"{argument('checkpoint', claimed.last)} {data_arguments(config.data)}"
        if "test" not in manifest.splits:
            words += " split=validation"
        print_run(record, claimed.path, f"python -m deepfake_cls.predict {words}")


def fit_and_score(config: TrainConfig, data: ImageData, hardware: Hardware, claimed: Run, started: float) -> Any:
    """Fit, score the last weights, and write the record.

    Args:
        config: The configuration.
        data: Training and validation images.
        hardware: What to run on.
        claimed: The run's folder.
        started: When the process's work on this run began, by ``time.perf_counter``.

    Returns:
        The record; None in processes that do not write it.
    """
    import torch

    from deepfake_cls.records import write_record
    from deepfake_cls.runs import plain
    from deepfake_cls.training.module import Classifier

    model = Classifier(
        classes=list(data.manifest.classes),
        size=list(data.train.store.size),
        channels=config.channels,
        width=config.width,
        dropout=config.dropout,
        lr=config.lr,
        steps=config.epochs * len(data.train_dataloader()),
        seed=config.seed,
        recipe=plain(config.recipe),
        identity=claimed.identity,
    )
    if config.trainer.compile:
        torch._dynamo.reset()  # it compiles a function so many times and no more, all jobs of a process together
        model.network.compile(dynamic=False)  # in place: the names in checkpoints stay as they are
    resume = resumable(config, claimed, model)
    trainer = build_trainer(config, hardware, claimed, len(data.train_dataloader()))
    setup = time.perf_counter() - started
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    restore_faulthandler()

    before = time.perf_counter()
    model.network._compiled_call_impl = None  # score as evaluate and predict do, which compile nothing
    model.to(torch.device(hardware.device)).eval()
    probs, mirror, clean = predict_everything(config, data, model, hardware)  # of many processes each takes its share
    if distributed.rank() != 0:
        return None
    times = [row["seconds"] for row in model.history]
    seconds = {"setup": setup, "fit": sum(times), "per_epoch": statistics.median(times[1:] or times)}
    if model.first_step is not None:  # a run that goes on at an epoch's end has no step left to time
        seconds["first_step"] = model.first_step
    seconds["evaluate"] = time.perf_counter() - before
    record = write_results(config, data, hardware, claimed, model.history, (probs, mirror, clean))
    record.seconds = {"total": time.perf_counter() - started, **seconds}
    log_hyperparameters(trainer, record)
    write_record(claimed.path, record)
    return record


def predict_everything(config: TrainConfig, data: ImageData, model: Classifier, hardware: Hardware) -> Predictions:
    """Probabilities of validation images, of their mirror images where TTA asks for them, of clean training images.

    Args:
        config: The configuration.
        data: Training and validation images.
        model: Trained, in evaluation mode, on its device.
        hardware: What to run on.
    """
    from deepfake_cls.training.module import predict_all

    probs = predict_all(model, data.full_val_dataloader(), hardware.precision)
    mirror = None
    if config.tta == "flip":
        mirror = predict_all(model, data.full_val_dataloader(), hardware.precision, tta="mirror")
    return probs, mirror, predict_all(model, data.clean_train_dataloader(), hardware.precision)


def write_results(
    config: TrainConfig,
    data: ImageData,
    hardware: Hardware,
    claimed: Run,
    history: list[dict[str, float]],
    predictions: Predictions,
) -> Record:
    """Score the predictions and write them; the record is written last, by the caller.

    Args:
        config: The configuration.
        data: Training and validation images.
        hardware: What it ran on.
        claimed: The run's folder.
        history: The learning curve.
        predictions: From :func:`predict_everything`.

    Returns:
        The record, without times.
    """
    import numpy as np

    from deepfake_cls.data.images import describe, skipped
    from deepfake_cls.records import Record, write_predictions
    from deepfake_cls.runs import plain
    from deepfake_cls.stats.metrics import score

    probs, mirror, clean = predictions
    labels = data.validation.labels
    scores = score(labels, probs)
    metrics = scores.prefixed("validation")
    metrics["val_acc_best"] = max(row["val_acc"] for row in history)
    metrics["train_acc"] = score(data.train.labels, clean).metrics["acc"]
    flipped = None
    if mirror is not None:
        flipped = np.asarray((probs + mirror) / 2, dtype=np.float32)
        metrics["val_acc_flip"] = score(labels, flipped).metrics["acc"]
    write_predictions(claimed.path / "predictions.npz", data.validation.ids, labels, probs, flipped)
    splits = {"train": data.train, "validation": data.validation}
    return Record(
        kind="cnn",
        status="ok",
        identity=claimed.identity,
        config=plain(config),
        seed=config.seed,
        data=describe(data.manifest, splits),
        metrics=metrics,
        recall=scores.recall,
        confusion=scores.confusion,
        device=hardware.name,
        precision=hardware.precision,
        threads=hardware.threads,
        processes=hardware.processes,
        history=history,
        skipped=skipped(splits),
    )


def resumable(config: TrainConfig, claimed: Run, model: Classifier) -> str | None:
    """The checkpoint to go on from, if any.

    Raises:
        InputError: If ``checkpoint`` belongs to another run.
    """
    from deepfake_cls.records import write_atomically
    from deepfake_cls.training.module import read_checkpoint

    path = config.checkpoint or (str(claimed.last) if claimed.last.is_file() else None)
    if path is None:
        return None
    try:
        found = read_checkpoint(path)["hyper_parameters"]
    except InputError as error:
        if config.checkpoint is None:
            raise InputError(f"{error} It is this run's own: force=true starts the run again.") from error
        raise
    if found.get("identity") != claimed.identity:
        mine = dict(model.hparams)
        differing = [f"{key}={found.get(key)} there, {mine[key]} here" for key in mine if found.get(key) != mine[key]]
        raise InputError(
            f"checkpoint={path}: belongs to another run, so going on from it would give a result that no"
            f" configuration describes ({'; '.join(differing)}). Give the configuration it was made with."
        )
    best = Path(path).with_name(claimed.best.name)
    if distributed.rank() == 0 and best.is_file() and not claimed.best.exists():
        # The best epoch may lie before the stop.
        write_atomically(claimed.best, best.read_bytes())
    print(f"Going on from {path}.", flush=True)
    return path


def build_trainer(config: TrainConfig, hardware: Hardware, claimed: Run, steps: int) -> Any:
    """Lightning's trainer, with this project's callbacks; ``steps`` are the batches of an epoch."""
    import logging
    import warnings

    import lightning as L
    from lightning.pytorch.loggers import TensorBoardLogger

    from deepfake_cls.training.callbacks import Checkpoint, Curves, LastCheckpoint, Pictures, ProgressBar, StopCleanly

    # Lightning sets its own level when it is imported; what it has to say at this level the run says itself.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # One process that reads memory-mapped pixels needs no loader workers; the advice to add some is noise.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # What is logged for an epoch is equal in all processes already.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    common: dict[str, Any] = {
        "enable_version_counter": False,
        "save_on_train_epoch_end": False,
        "auto_insert_metric_name": False,
    }
    last = LastCheckpoint(claimed.last, **common)
    callbacks: list[L.Callback] = [
        Curves(every=min(10, steps)),
        StopCleanly(last),
        Pictures(),
        Checkpoint(dirpath=claimed.best.parent, filename="best", monitor="val_acc", mode="max", **common),
        last,
    ]
    if config.trainer.progress:
        callbacks.append(ProgressBar())
    return L.Trainer(
        accelerator="gpu" if hardware.device == "cuda" else "cpu",
        devices=distributed.local_size(),
        num_nodes=distributed.world_size() // distributed.local_size(),
        sync_batchnorm=hardware.device == "cuda" and distributed.world_size() > 1,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=config.epochs,
        logger=TensorBoardLogger(claimed.path, name="", version=""),
        callbacks=callbacks,
        enable_progress_bar=config.trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=1,  # of what steps log there is nothing: Curves writes it
        benchmark=hardware.device == "cuda" and not config.trainer.deterministic,
        num_sanity_val_steps=0,
    )


def log_hyperparameters(trainer: Any, record: Record) -> None:
    """Put settings beside final metrics, so that a sweep compares in TensorBoard's HParams tab."""
    config = record.config
    # Few, since the tab shows only the first of them: what a sweep varies, and not what all runs share.
    keys = ("lr", "dropout", "channels", "width", "epochs", "batch_size", "seed")
    flat = {key: config[key] for key in keys} | {"data": config["data"]["name"]}
    flat |= {f"data.{key}": config["data"][key] for key in ("strength", "alpha") if key in config["data"]}
    flat |= {f"recipe.{key}": value for key, value in config["recipe"].items()}
    trainer.logger.log_hyperparams(flat, {f"final/{name}": value for name, value in record.metrics.items()})
    trainer.logger.finalize("success")


if __name__ == "__main__":
    main("train", TrainConfig, run)
