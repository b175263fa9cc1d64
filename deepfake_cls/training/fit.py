"""One training from start to record: the module, Lightning's trainer, scores of the last weights."""

from __future__ import annotations

import csv
import logging
import os
import statistics
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from numpy.typing import NDArray

from deepfake_cls import distributed
from deepfake_cls.checkpoints import load_model, read_checkpoint, weights
from deepfake_cls.config import LoggerConfig, TrainConfig
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware
from deepfake_cls.inference import Outputs, predict_all
from deepfake_cls.jobs import restore_faulthandler
from deepfake_cls.records import Record, write_atomically, write_predictions, write_record
from deepfake_cls.runs import Run
from deepfake_cls.stats.metrics import score
from deepfake_cls.training.callbacks import Checkpoint, Curves, LastCheckpoint, Pictures, ProgressBar, StopCleanly
from deepfake_cls.training.image_features import prepare
from deepfake_cls.training.module import Classifier

KEPT_FEATURES = 20_000  # training images whose outputs are kept, at most


def fit_and_score(
    config: TrainConfig, data: ImageData, hardware: Hardware, claimed: Run, digests: dict[str, str], started: float
) -> Record | None:
    """Fit, score the last weights, and write the record.

    Args:
        config: The configuration.
        data: Training and validation images.
        hardware: What to run on.
        claimed: The run's folder.
        digests: Of files that the result depends on.
        started: When the process's work on this run began, by ``time.perf_counter``.

    Returns:
        The record; None in processes that do not write it.
    """
    model = Classifier(
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
        identity=claimed.identity,
    )
    resume = resumable(config, claimed, model)
    if config.init is not None and resume is None:
        start_from(config.init, model)
    pixels = (data.train_pixels, data.validation_pixels)
    prepare(model.network, asdict(config.model), *pixels, fit=resume is None, force=config.force)
    if distributed.world_size() > 1:
        data.needed, data.scored = model.needed, own_batches
    if config.trainer.compile:
        torch.compiler.reset()  # it compiles a function so many times and no more, all jobs of a process together
        model.network.compile(dynamic=False)  # in place: the names in checkpoints stay as they are
    trainer = build_trainer(config, hardware, claimed, len(data.train_dataloader()), resume is not None)
    setup = time.perf_counter() - started
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    restore_faulthandler()

    before = time.perf_counter()
    model.to(torch.device(hardware.device)).eval()
    if config.trainer.compile:  # score as evaluate and predict do, which compile nothing
        with torch.compiler.set_stance("force_eager"):
            validation, clean = score_all(config, data, model, hardware)
    else:
        validation, clean = score_all(config, data, model, hardware)
    if distributed.rank() != 0:
        return None
    times = [row["seconds"] for row in model.history]
    seconds = {"setup": setup, "fit": sum(times), "per_epoch": statistics.median(times[1:] or times)}
    if model.first_step is not None:  # a run that goes on at an epoch's end has no step left to time
        seconds["first_step"] = model.first_step
    seconds["evaluate"] = time.perf_counter() - before
    record = write_results(config, data, hardware, claimed, model.history, validation, clean)
    record.digests = digests
    record.seconds = {"total": time.perf_counter() - started, **seconds}
    log_hyperparameters(trainer, record)
    write_record(claimed.path, record)
    return record


def own_batches(
    indices: NDArray[np.int64], _labels: NDArray[np.int64], _epoch: int, step: int
) -> NDArray[np.int64] | None:
    """Rows of a batch that is scored which this process reads: all of every n-th batch, and none of the others."""
    return None if step % distributed.world_size() == distributed.rank() else indices[:0]


def score_all(config: TrainConfig, data: ImageData, model: Classifier, hardware: Hardware) -> tuple[Outputs, Outputs]:
    """What the trained network says of validation images, and of training images without augmentation.

    Args:
        config: The configuration.
        data: Training and validation images.
        model: Trained, in evaluation mode, on its device.
        hardware: What to run on.
    """
    where = (hardware.device, hardware.precision)
    validation = predict_all(model.network, data.full_val_dataloader(), *where, flip=config.tta == "flip")
    return validation, predict_all(model.network, data.clean_train_dataloader(), *where)


def write_results(
    config: TrainConfig,
    data: ImageData,
    hardware: Hardware,
    claimed: Run,
    history: list[dict[str, float]],
    validation: Outputs,
    clean: Outputs,
) -> Record:
    """Score the outputs and write them; the record is written last, by the caller.

    Args:
        config: The configuration.
        data: Training and validation images.
        hardware: What it ran on.
        claimed: The run's folder.
        history: The learning curve.
        validation: Of the validation images.
        clean: Of the training images.

    Returns:
        The record, without times.
    """
    labels = data.validation.labels
    scores = score(labels, validation.probs)
    metrics = scores.prefixed("validation")
    metrics["val_acc_best"] = max(row["val_acc"] for row in history)
    metrics["train_acc"] = score(data.train.labels, clean.probs).metrics["acc"]
    if validation.probs_flip is not None:
        metrics["val_acc_flip"] = score(labels, validation.probs_flip).metrics["acc"]
    write_outputs(claimed.path / "predictions.npz", data.validation.ids, labels, validation)
    kept = np.sort(np.random.default_rng(0).permutation(len(data.train))[:KEPT_FEATURES])
    ids = [data.train.ids[row] for row in kept]
    write_outputs(claimed.path / "train_features.npz", ids, data.train.labels[kept], clean, kept)
    splits = {"train": data.train, "validation": data.validation}
    return claimed.result(config, data.manifest, splits, hardware, scores, metrics=metrics, history=history)


def write_outputs(
    path: Path,
    ids: Any,
    labels: NDArray[np.int64],
    outputs: Outputs,
    rows: NDArray[np.int64] | slice = slice(None),
) -> None:
    """Write the outputs of some images.

    Args:
        path: The file.
        ids: One for each image that is written.
        labels: int64, of these images.
        outputs: Of all images.
        rows: Which images are written.
    """
    features, flipped = outputs.features, outputs.probs_flip
    write_predictions(
        path,
        ids,
        labels,
        outputs.probs[rows],
        logits=outputs.logits[rows],
        features=None if features is None else features[rows],
        probs_flip=None if flipped is None else flipped[rows],
    )


def add_flip(data: ImageData, hardware: Hardware, claimed: Run) -> Record:
    """Score flip TTA of a finished run from its checkpoint, and add it to its record and predictions.

    Args:
        data: Training and validation images.
        hardware: What to run on.
        claimed: The finished run.

    Raises:
        InputError: If the run has no checkpoint any more.
    """
    record = claimed.done
    assert record is not None
    if not claimed.last.is_file():
        raise InputError(
            f"{claimed.path}: tta=flip is not scored there, and its checkpoint {claimed.last} is gone; force=true"
            " repeats the run."
        )
    model = load_model(claimed.last)
    model.network.to(hardware.device)
    outputs = predict_all(model.network, data.full_val_dataloader(), hardware.device, hardware.precision, flip=True)
    if distributed.rank() == 0:
        assert outputs.probs_flip is not None
        record.metrics["val_acc_flip"] = score(data.validation.labels, outputs.probs_flip).metrics["acc"]
        write_outputs(claimed.path / "predictions.npz", data.validation.ids, data.validation.labels, outputs)
        write_record(claimed.path, record)
    return record


def start_from(path: str, model: Classifier) -> None:
    """Take weights from a checkpoint, where names and shapes fit, and say which.

    Args:
        path: The checkpoint; it may hold other classes, and then gives no last layer.
        model: Gets the weights.

    Raises:
        InputError: If it is no checkpoint of this project, or nothing of it fits.
    """
    checkpoint = read_checkpoint(path)
    found, own = weights(checkpoint), model.network.state_dict()
    taken = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if list(checkpoint["hyper_parameters"]["classes"]) != model.classes:
        # A row of the last layer stands for a class: of other classes none means the same.
        last = [name for name, module in model.network.named_modules() if isinstance(module, torch.nn.Linear)][-1:]
        taken = {name: value for name, value in taken.items() if name.rpartition(".")[0] not in last}
    if not any(value.ndim > 1 for value in taken.values()):  # biases and counters fit many networks
        raise InputError(f"init={path}: none of its weights fits this network; choose the model it was trained as.")
    model.network.load_state_dict({**own, **taken})
    left = [name for name in own if name not in taken]
    print(f"init={path}: {len(taken)} of {len(own)} tensors taken.", flush=True)
    if left:
        print(f"  starting anew: {', '.join(left)}", flush=True)


def resumable(config: TrainConfig, claimed: Run, model: Classifier) -> str | None:
    """The checkpoint to go on from, if any.

    Raises:
        InputError: If ``checkpoint`` belongs to another run.
    """
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


def build_logger(config: LoggerConfig, folder: Path, resumed: bool) -> Logger:
    """One of Lightning's loggers, started.

    Args:
        config: Which, and its arguments.
        folder: The run's folder.
        resumed: Whether the run goes on; the CSV of its first part is then kept.

    Raises:
        InputError: If its package is missing, it does not take the arguments, or it does not start.
    """
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    own: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "tensorboard": (TensorBoardLogger, {"save_dir": folder, "name": "", "version": ""}),
        "csv": (CSVLogger, {"save_dir": folder, "name": "", "version": ""}),
        "mlflow": (MLFlowLogger, {"experiment_name": "deepfake_cls", "run_name": folder.name}),
        "wandb": (WandbLogger, {"save_dir": folder, "project": "deepfake_cls", "name": folder.name}),
    }
    kind, usual = own[config.name]
    # Without a server MLflow writes to ./mlruns: its package for clients, mlflow-skinny, has no database.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        logger: Any = kind(**{**usual, **config.args})
        points = _csv_points(logger) if resumed else []
        _ = logger.experiment  # some check their arguments only when they start
    except ImportError as error:
        raise InputError(
            f"logger={config.name}: {error}; install it: pip install 'deepfake-cls[{config.name}]'."
        ) from error
    except TypeError as error:
        raise InputError(f"logger.args: {error}; they are those of Lightning's {kind.__name__}.") from error
    except Exception as error:  # each service has its own errors
        raise InputError(
            f"logger={config.name}: does not start ({str(error).splitlines()[0]}); mend logger.args, or use"
            " logger=tensorboard."
        ) from error
    for point in points:
        step = int(point.pop("step"))
        logger.log_metrics(point, step)
    return logger  # type: ignore[no-any-return]


def _csv_points(logger: Logger) -> list[dict[str, float]]:
    """What a CSV holds already, which Lightning's logger deletes when it starts."""
    file = Path(logger.log_dir or "", "metrics.csv")
    if not isinstance(logger, CSVLogger) or not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]


def build_trainer(
    config: TrainConfig, hardware: Hardware, claimed: Run, steps: int, resumed: bool = False
) -> L.Trainer:
    """Lightning's trainer, with this project's callbacks.

    Args:
        config: The configuration.
        hardware: What to run on.
        claimed: The run's folder.
        steps: Batches of an epoch.
        resumed: Whether the run goes on from a checkpoint.
    """
    # Lightning sets its own level when it is imported; what it has to say at this level the run says itself.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # One process that reads memory-mapped pixels needs no loader workers; the advice to add some is noise.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # What is logged for an epoch is equal in all processes already.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory .* exists and is not empty.*")
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
        logger=build_logger(config.logger, claimed.path, resumed),
        callbacks=callbacks,
        enable_progress_bar=config.trainer.progress,
        enable_model_summary=False,
        log_every_n_steps=1,  # of what steps log there is nothing: Curves writes it
        benchmark=hardware.device == "cuda" and not config.trainer.deterministic,
        num_sanity_val_steps=0,
    )


def log_hyperparameters(trainer: L.Trainer, record: Record) -> None:
    """Put settings beside final metrics, so that a sweep compares in TensorBoard's HParams tab."""
    config = record.config
    # Few, since the tab shows only the first of them: what a sweep varies, and not what all runs share.
    keys = ("lr", "dropout", "channels", "width", "epochs", "batch_size", "seed")
    flat = {key: config[key] for key in keys} | {"data": config["data"]["name"], "model": config["model"]["name"]}
    flat |= {f"data.{key}": config["data"][key] for key in ("strength", "alpha") if key in config["data"]}
    flat |= {f"model.{key}": str(value) for key, value in config["model"]["args"].items()}
    flat |= {
        f"augment.{name}.{key}": value
        for name, strengths in config["augment"].items()
        for key, value in (strengths or {}).items()
    }
    flat |= {f"recipe.{key}": value for key, value in config["recipe"].items()}
    final = {f"final/{name}": value for name, value in record.metrics.items()}
    logger = trainer.logger
    assert logger is not None
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(flat, final)
    else:
        logger.log_hyperparams(flat)
        logger.log_metrics(final, trainer.global_step)
    logger.finalize("success")
