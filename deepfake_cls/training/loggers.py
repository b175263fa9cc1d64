"""Lightning's loggers: build them from the configuration, and log the hyperparameters and final metrics of a run."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from deepfake_cls.config import LoggerConfig
from deepfake_cls.errors import InputError, OutputError, reason, writing
from deepfake_cls.records import Record


def build_logger(config: LoggerConfig, folder: Path, resumed: bool) -> Logger:
    """Build and start the logger of a run; if the run resumes, the CSV logger keeps its rows.

    Raises:
        InputError: If its package is missing, it does not take the arguments, or it does not start.
        OutputError: If its files cannot be written.
    """
    loggers: dict[str, tuple[type[Any], dict[str, Any]]] = {
        "tensorboard": (TensorBoardLogger, {"save_dir": folder, "name": "", "version": ""}),
        "csv": (CSVLogger, {"save_dir": folder, "name": "", "version": ""}),
        "mlflow": (MLFlowLogger, {"experiment_name": "deepfake_cls", "run_name": folder.name}),
        "wandb": (WandbLogger, {"save_dir": folder, "project": "deepfake_cls", "name": folder.name}),
    }
    factory, defaults = loggers[config.name]
    # Without a server MLflow writes to ./mlruns: its client package, mlflow-skinny, has no database.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    threading.excepthook = _report_in_thread
    try:
        with writing(folder, also_reads=True):
            logger: Any = factory(**{**defaults, **config.args})
            rows = _csv_rows(logger) if resumed and isinstance(logger, CSVLogger) else []
            _ = logger.experiment  # starts the logger; some check their arguments only then
    except OutputError:
        raise
    except ImportError as error:
        raise InputError(f"logger={config.name}: {error}; run pip install 'deepfake-cls[{config.name}]'.") from error
    except TypeError as error:
        raise InputError(f"logger.args: {error}; expected arguments of Lightning's {factory.__name__}.") from error
    except Exception as error:  # each service has its own errors
        raise InputError(
            f"logger={config.name}: does not start ({reason(error)}); correct logger.args, or use logger=tensorboard."
        ) from error
    for row in rows:
        logger.log_metrics(row, int(row.pop("step")))
    return logger  # type: ignore[no-any-return]


def _report_in_thread(error: threading.ExceptHookArgs) -> None:
    """Print no traceback of TensorBoard's thread: its error is raised again in the main thread, by the next write."""
    if not isinstance(error.exc_value, OSError) or not type(error.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(error)


def _csv_rows(logger: CSVLogger) -> list[dict[str, float]]:
    """The rows of an existing CSV file, which Lightning's logger deletes when it starts."""
    file = Path(logger.log_dir, "metrics.csv")
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]


def log_hyperparameters(logger: Logger, record: Record, step: int) -> None:
    """Log hyperparameters and final metrics, which TensorBoard compares in its HParams tab."""
    config = record.config
    # TensorBoard shows only the first columns, so the keys that sweeps vary come first.
    keys = ("lr", "dropout", "channels", "width", "epochs", "batch_size", "seed")
    flat = {key: config[key] for key in keys} | {"data": config["data"]["name"], "model": config["model"]["name"]}
    flat |= {f"data.{key}": config["data"][key] for key in ("strength", "alpha") if key in config["data"]}
    flat |= {f"model.{key}": str(value) for key, value in config["model"]["args"].items()}
    for name, strengths in config["augment"].items():
        flat |= {f"augment.{name}.{key}": value for key, value in (strengths or {}).items()}
    flat |= {f"recipe.{key}": value for key, value in config["recipe"].items()}
    final = {f"final/{name}": value for name, value in record.metrics.items()}
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(flat, final)
    else:
        logger.log_hyperparams(flat)
        logger.log_metrics(final, step)
    logger.finalize("success")
