"""Networks by name, and how one is built from plain values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deepfake_cls.errors import InputError
from deepfake_cls.randomness import derive
from deepfake_cls.registry import Registry

network: Registry[str, Callable[..., nn.Module]] = Registry("model.name")
"""Register a network: ``@network("name")`` on a class, or on a function that returns a module.

It takes ``in_channels`` and ``num_classes``, those of ``width`` and ``dropout`` that its signature names, and its own
arguments from ``model.args``. Its ``forward`` maps uint8 images (B, C, H, W) to logits (B, num_classes), so it
normalises the images itself. It may define:

- ``initialise(seed)``: draw the weights again, from the run's seed.
- ``image_features(images) -> float32 (B, E)``, and ``forward(images, image_features=None)``: see `docs/extend.md`.
"""

GIVEN = ("in_channels", "num_classes")
SHARED = ("width", "dropout")


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments of a registered network that ``model.args`` may give, by name.

    Raises:
        InputError: If no network has the name.
    """
    parameters = inspect.signature(network[name]).parameters
    return {key: value for key, value in parameters.items() if key not in (*GIVEN, *SHARED)}


def check_arguments(name: str, args: dict[str, Any]) -> None:
    """Refuse arguments that a network does not take.

    Raises:
        InputError: Naming the argument and those that there are; or the network, if it is unknown.
    """
    known = arguments(name)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for key in args:
        if key not in known:
            raise InputError(f"model.args.{key}: model.name={name} takes {', '.join(known) or 'no arguments'}.")
    required = [key for key, parameter in known.items() if parameter.default is parameter.empty]
    for key in required:
        if key not in args:
            raise InputError(f"model.args.{key}: missing; model.name={name} needs it, as in model.args.{key}=VALUE.")


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
    """Build a registered network with weights that follow from the seed.

    Args:
        name: Its name in the registry.
        args: Its own arguments, plain values.
        in_channels: 3 (RGB) or 4 (RGBA).
        num_classes: Number of classes.
        width: Of the stem; given to networks that take it.
        dropout: Given to networks that take it.
        seed: Of the initial weights; None leaves them to torch.

    Raises:
        InputError: If there is no such network, or it does not take the arguments.
    """
    check_arguments(name, args)
    factory = network[name]
    taken = inspect.signature(factory).parameters
    shared = {key: value for key, value in (("width", width), ("dropout", dropout)) if key in taken}
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(derive(seed, "weights"))
        built = factory(in_channels=in_channels, num_classes=num_classes, **shared, **args)
    initialise: Any = getattr(built, "initialise", None)
    if seed is not None and initialise is not None:
        initialise(seed)
    return built
