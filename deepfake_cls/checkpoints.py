"""Checkpoints: read tensors and plain values without unpickling anything else, and rebuild a network."""

from __future__ import annotations

import pickle
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepfake_cls.crops import Crops
from deepfake_cls.errors import LONGEST_REASON, InputError, reason
from deepfake_cls.models import build

SETTINGS = ("model", "classes", "size", "channels", "width", "dropout", "seed")  # what load_model needs
_PREFIX = "network."  # of the network's weights in a state_dict
_ZIP = b"PK\x03\x04"  # the first bytes of a zip file
_FOLDER = 0x10  # the attribute of a record in a zip file that says that it is a folder


DEPTHS = ("", "checkpoints/", "*/checkpoints/", "*/*/checkpoints/")  # of checkpoints in a folder


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
        real: The class of images that no generator made; None if the training named none.
        crops: How the training cropped images; None for whole images.
        reencode: The training's ``data.reencode``.
    """

    network: nn.Module
    classes: list[str]
    size: tuple[int, int]
    channels: str
    seed: int
    resize: bool | None = None
    real: str | None = None
    crops: Crops | None = None
    reencode: str | None = None

    @property
    def real_label(self) -> int | None:
        """The label of ``real``."""
        return None if self.real is None else self.classes.index(self.real)


def read_checkpoint(path: str | Path, key: str = "checkpoint", advice: str = "") -> dict[str, Any]:
    """Read a checkpoint of this project and verify it.

    Args:
        path: The file.
        key: The key of the configuration that names the file, for messages.
        advice: What to do about an unusable file; by default to give another one.

    Raises:
        InputError: If the file does not exist, is damaged, or is no checkpoint of this project.
    """
    file = Path(path)
    if file.is_dir():
        found = next((path for depth in DEPTHS for path in sorted(file.glob(f"{depth}last.ckpt"))), None)
        example = "the last.ckpt of a run" if found is None else f"a file, such as {found}"
        raise InputError(f"{key}={file}: is a folder; give {example}.")
    if not file.is_file():
        problem = "is no regular file" if file.exists() else "no such file"
        raise InputError(f"{key}={file}: {problem}. A run has checkpoints/last.ckpt and best.ckpt.")
    try:
        damage = _damage(file)
    except OSError as error:
        raise InputError(f"{key}={file}: cannot be read ({error.strerror or error}).") from error
    if damage is not None:
        other = "last.ckpt" if file.name == "best.ckpt" else "best.ckpt"
        raise InputError(f"{key}={file}: {damage}. {advice or f'Give {other} of the same run, or train again.'}")
    try:
        return _load(file)
    except Exception as error:
        problem = "is not" if isinstance(error, ValueError) else "is damaged or not"
        advice = advice or "Give a checkpoint that train wrote, such as last.ckpt of a run."
        raise InputError(f"{key}={file}: {problem} a checkpoint of this project ({reason(error)}). {advice}") from error


def _damage(file: Path) -> str | None:
    """How a file differs from what ``torch.save`` wrote; None if it does not, or if it is no file of ``torch.save``.

    ``torch.save`` writes a zip file with a CRC-32 of each record, so a copy and an old file can be verified too. The
    checks of ``zipfile`` miss one change that matters: if an attribute says that a record is a folder, torch reads no
    bytes of it. For each bit of a checkpoint, a test inverted it: each change is found here, or by torch, or it changes
    nothing that is loaded.

    Raises:
        OSError: If the file cannot be read.
    """
    start = _start(file)
    if not start:
        return "is empty"
    try:
        opened = zipfile.ZipFile(file)
    except Exception:  # which one depends on the byte that has changed
        return "is damaged (its end is missing or has changed)" if start == _ZIP else None
    try:
        with opened as records:
            if not any(name.endswith("/data.pkl") for name in records.namelist()):
                return None
            folders = [record.filename for record in records.infolist() if record.external_attr & _FOLDER]
            changed = records.testzip() or next(iter(folders), None)
    except Exception as error:
        return f"is damaged ({reason(error)})"
    return f"is damaged (the record {changed!r} has changed)" if changed is not None else None


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(len(_ZIP))


def _load(file: Path) -> dict[str, Any]:
    """Read an undamaged file.

    Raises:
        ValueError: If it is no checkpoint of this project; the message is the reason.
        Exception: From torch, if a change of the file's structure was not found before.
    """
    try:
        if _start(file) != _ZIP:
            raise ValueError("not a file of torch.save")
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("it contains more than tensors and plain values, and could run code") from error
    parts = checkpoint if isinstance(checkpoint, dict) else {}
    settings: Any = parts.get("hyper_parameters")
    if not isinstance(parts.get("state_dict"), dict) or not isinstance(settings, dict):
        raise ValueError("it has no state_dict with hyper_parameters")
    if "model" not in settings and "recipe" in settings:  # before networks had names
        settings["model"] = {"name": "resnet", "args": {"skips": bool(settings["recipe"].get("skips", True))}}
    missing = [name for name in SETTINGS if name not in settings]
    if missing:
        raise ValueError(f"its hyper_parameters have no {missing[0]}")
    return parts


def weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The network's parameters and buffers by name."""
    state = checkpoint["state_dict"]
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def with_weights(checkpoint: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """The checkpoint with the weights of this network; the state of the training stays."""
    state = {f"{_PREFIX}{name}": value.cpu() for name, value in network.state_dict().items()}
    return {**checkpoint, "state_dict": {**checkpoint["state_dict"], **state}}


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
        crops = settings.get("crops")
        return Model(
            network.eval(),
            list(settings["classes"]),
            (height, width),
            settings["channels"],
            settings["seed"],
            settings.get("resize"),
            settings.get("real"),
            None if crops is None else Crops(**crops),
            settings.get("reencode"),
        )
    except InputError as error:
        raise InputError(f"checkpoint={path}: {error}") from error
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        text = textwrap.shorten(f"{type(error).__name__}: {error}", 2 * LONGEST_REASON, placeholder=" …")
        raise InputError(f"checkpoint={path}: does not describe a classifier of this version ({text}).") from error
