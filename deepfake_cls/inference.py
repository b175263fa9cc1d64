"""A checkpoint and a split in, probabilities out: what ``evaluate`` and ``predict`` share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from deepfake_cls.config import EvaluateConfig, PredictConfig
from deepfake_cls.data.datamodule import Batches, Pixels
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware, choose
from deepfake_cls.training.module import Classifier, load_classifier, predict_all


def check_request(config: EvaluateConfig | PredictConfig) -> None:
    """Refuse values that no prediction can have.

    Raises:
        InputError: Naming the key, the value and what was expected.
    """
    if config.tta not in ("none", "flip"):
        raise InputError(f"tta={config.tta}: expected none or flip.")
    if config.batch_size < 1:
        raise InputError(f"batch_size={config.batch_size}: expected 1 or more.")


def open_model(config: EvaluateConfig | PredictConfig) -> tuple[Classifier, Hardware]:
    """Rebuild the model of ``config.checkpoint`` on the chosen device, ready to predict."""
    hardware = choose(config.trainer)
    return load_classifier(config.checkpoint).to(hardware.device).eval(), hardware


def score_split(config: EvaluateConfig | PredictConfig, model: Classifier) -> tuple[Manifest, SplitImages]:
    """Open the split that is asked for, at the size the model was trained on.

    Raises:
        InputError: If the data is wrong, or of another size without ``data.resize=true``.
    """
    height, width = model.hparams["size"]
    manifest = read_manifest(config.data)
    return manifest, open_images(manifest, config.split, config.data, config.trainer.progress, (height, width))


def predict_split(
    config: EvaluateConfig | PredictConfig, model: Classifier, split: SplitImages, hardware: Hardware
) -> NDArray[np.float32]:
    """Class probabilities of a split, with a progress bar: float32 (N, classes), in the split's order."""
    batches = Batches(Pixels(split, model.hparams["channels"], hardware.device, often=False), config.batch_size)
    with Progress(transient=True, disable=not config.trainer.progress) as bar:
        task = bar.add_task("images", total=len(split))
        return predict_all(model, batches, hardware.precision, config.tta, lambda count: bar.advance(task, count))
