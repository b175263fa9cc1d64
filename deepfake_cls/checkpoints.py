"""Checkpoints: read tensors and plain values without unpickling anything else, and rebuild a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepfake_cls.errors import InputError
from deepfake_cls.models import build


@dataclass(frozen=True)
class Model:
    """A trained network with the data needed to use it.

    Attributes:
        network: In evaluation mode.
        classes: Class names, in label order.
        size: Height and width of the training images.
        channels: ``RGB`` or ``RGBA``.
        seed: Seed of the training.
        resize: Whether images of another size were resized for the training; None where the checkpoint does not say it.
    """

    network: nn.Module
    classes: list[str]
    size: tuple[int, int]
    channels: str
    seed: int
    resize: bool | None = None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project.

    Raises:
        InputError: If the file does not exist or is no checkpoint of this project.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"checkpoint={file}: is a folder; give a file, such as {file}/checkpoints/last.ckpt.")
    if not file.is_file():
        raise InputError(f"checkpoint={file}: no such file. A run has checkpoints/last.ckpt and best.ckpt.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"checkpoint={file}: not a checkpoint that loads with weights_only=True"
            f" ({str(error).splitlines()[0][:120]}). Give a file that this project wrote."
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise InputError(f"checkpoint={file}: has no state_dict with hyper_parameters; not from this project.")
    settings = checkpoint["hyper_parameters"]
    if isinstance(settings, dict) and "model" not in settings and "recipe" in settings:  # before networks had names
        settings["model"] = {"name": "resnet", "args": {"skips": bool(settings["recipe"].get("skips", True))}}
    return checkpoint


def weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's parameters and buffers by name."""
    prefix = "network."
    state = checkpoint["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load_model(path: str | Path) -> Model:
    """Rebuild a network from its checkpoint only, in evaluation mode.

    Raises:
        InputError: See :func:`read_checkpoint`; also if the network is not registered, or the weights do not fit it.
    """
    checkpoint = read_checkpoint(path)
    settings = checkpoint["hyper_parameters"]
    try:
        args = dict(settings["model"]["args"])
        if "pretrained" in args:  # the weights are in the checkpoint: nothing is downloaded
            args["pretrained"] = False
        network = build(
            settings["model"]["name"],
            args,
            in_channels=len(settings["channels"]),
            num_classes=len(settings["classes"]),
            width=settings["width"],
            dropout=settings["dropout"],
        )
        network.load_state_dict(weights(checkpoint))
        height, width = settings["size"]
        return Model(
            network.eval(),
            list(settings["classes"]),
            (height, width),
            settings["channels"],
            settings["seed"],
            settings.get("resize"),
        )
    except InputError as error:
        raise InputError(f"checkpoint={path}: {error}") from error
    except (TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"checkpoint={path}: does not describe a classifier of this version: {error}") from error
