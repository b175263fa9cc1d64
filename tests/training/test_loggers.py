from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from deepfake_cls.config import LoggerConfig, TrainConfig
from deepfake_cls.records import Record
from deepfake_cls.training.loggers import build_logger, log_hyperparameters
from tests.conftest import configure


def write_run(name: str, *overrides: str) -> None:
    """Log a finished run as training does."""
    logger = build_logger(LoggerConfig(), Path("runs", name), resumed=False)
    logger.finalize("success")  # as Lightning does when the training ends
    config = asdict(configure("train", TrainConfig, *overrides))
    log_hyperparameters(logger, Record("cnn", "ok", name, config, metrics={"val_acc": 0.5, "train_acc": 0.6}), 10)


def columns(folder: str) -> tuple[list[str], list[str]]:
    """Names of the hyperparameters and of the metrics in TensorBoard's HParams tab, in its order."""
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.backend_context import Context
    from tensorboard.plugins.hparams.get_experiment import Handler

    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(folder)
    multiplexer.Reload()
    backend = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, folder)))
    request = api_pb2.GetExperimentRequest(experiment_name="")
    experiment: Any = Handler(context.RequestContext(), backend, "", request).run()
    return [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]


def test_the_hparams_tab_lists_what_varies_first() -> None:
    write_run("a", "lr=1e-3", "augment.cutmix=null")
    write_run("b", "lr=4e-3", "seed=1", "+augment.noise.strength=1")
    keys, metrics = columns("runs")
    assert keys[:2] == ["lr", "seed"]
    assert {"dropout", "augment.cutmix.p", "augment.noise.strength"} <= set(keys)  # also those that only one run has
    assert metrics == ["final/train_acc", "final/val_acc"]


def test_the_settings_are_saved_as_yaml() -> None:
    write_run("a", "lr=1e-3")
    assert yaml.safe_load(Path("runs/a/hparams.yaml").read_text())["lr"] == 1e-3
