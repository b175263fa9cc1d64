"""Networks by name, built from plain values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deepfake_cls.randomness import derive
from deepfake_cls.registry import Registry, check_arguments, check_types

network: Registry[str, Callable[..., nn.Module]] = Registry("model.name")
"""Register a network: ``@network("name")`` on a class, or on a function that returns a module.

Its arguments are ``in_channels`` and ``num_classes``; optionally ``width`` and ``dropout``; and those that
``model.args`` sets. Its ``forward`` maps uint8 images (B, C, H, W) to logits (B, num_classes), and so includes the
normalisation. It may also define:

- ``initialise(seed)``, which draws the initial weights from the run's seed.
- ``image_features(images) -> float32 (B, E)`` and ``forward(images, image_features)``: see `docs/extend.md`.
"""

SHARED = ("in_channels", "num_classes", "width", "dropout")


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments of a network that ``model.args`` sets, by name.

    Raises:
        InputError: If no network has the name.
    """
    parameters = inspect.signature(network[name]).parameters
    return {key: parameter for key, parameter in parameters.items() if key not in SHARED}


def check_network(name: str, args: dict[str, Any]) -> None:
    """Raise InputError if the network or an argument is unknown, or an argument is missing or of another type."""
    check_arguments(arguments(name), args, "model.args", f"model.name={name}")
    check_types(arguments(name), args, "model.args")


def build(
    name: str,
    args: dict[str, Any],
    *,
    in_channels: int,
    num_classes: int,
    width: int,
    dropout: float,
    seed: int | None = 0,
) -> nn.Module:
    """Build a network with initial weights that depend only on the seed.

    Args:
        name: Its registered name.
        args: The values of ``model.args``.
        in_channels: 3 (RGB) or 4 (RGBA).
        num_classes: Number of classes.
        width: Channels of the stem, for networks that have this argument.
        dropout: Dropout probability, for networks that have this argument.
        seed: The run's seed; None draws from torch's global generator.

    Raises:
        InputError: If the network or an argument is unknown, or an argument is missing.
    """
    check_network(name, args)
    factory = network[name]
    optional = {"width": width, "dropout": dropout}
    optional = {key: value for key, value in optional.items() if key in inspect.signature(factory).parameters}
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(derive(seed, "weights"))
        built = factory(in_channels=in_channels, num_classes=num_classes, **optional, **args)
    initialise: Any = getattr(built, "initialise", None)
    if seed is not None and initialise is not None:
        initialise(seed)
    return built
