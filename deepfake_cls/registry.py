"""Parts that are chosen by name: networks, data sources, augmentations, metrics, tables."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from deepfake_cls.errors import InputError
from deepfake_cls.notation import override

Name = TypeVar("Name", str, int)
Part = TypeVar("Part")
Registered = TypeVar("Registered")


class Registry(Generic[Name, Part]):
    """A decorator that registers a class or function under a name, and a mapping from names to parts.

    Args:
        key: The configuration key that chooses a part, such as ``model.name``; used in error messages.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._parts: dict[Name, Part] = {}

    def __call__(self, name: Name) -> Callable[[Registered], Registered]:
        """Register the decorated class or function.

        Raises:
            InputError: If the name is missing, or another part has it.
        """
        if not isinstance(name, str | int):
            raise InputError(f"{self.key}: a part is registered without a name; give one, as in @registry(NAME).")

        def register(part: Registered) -> Registered:
            old: Any = self._parts.get(name)
            new: Any = part
            # A module that is imported again may register its parts again.
            if old is not None and (old.__module__, old.__qualname__) != (new.__module__, new.__qualname__):
                raise InputError(
                    f"{self.key}={name} is registered twice, by {old.__module__}.{old.__qualname__} and by"
                    f" {new.__module__}.{new.__qualname__}; give one of them another name."
                )
            self._parts[name] = new
            return part

        return register

    def __getitem__(self, name: Name) -> Part:
        """The part with that name.

        Raises:
            InputError: If there is none.
        """
        if name not in self._parts:
            names = ", ".join(map(str, self))
            raise InputError(
                f"{self.key}={name}: unknown; expected one of {names}. A part of your own needs plugins=[MODULE]."
            )
        return self._parts[name]

    def __iter__(self) -> Iterator[Name]:
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts


def check_arguments(
    parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], key: str, part: str
) -> None:
    """Check that a part takes the arguments that the configuration gives it, and that none is missing.

    Args:
        parameters: Of the part, by name.
        arguments: By name.
        key: Configuration key of the arguments, such as ``model.args``.
        part: The part, as messages name it.

    Raises:
        InputError: If an argument is unknown or missing.
    """
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in arguments:
        if name not in parameters:
            raise InputError(f"{key}.{name}: unknown; {part} takes {', '.join(parameters) or 'no arguments'}.")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise InputError(f"{key}.{name}: missing; {part} needs it, as in {key}.{name}=VALUE.")


TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "bool": (bool, "true or false"),
    "int": (int, "an integer"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
}


def check_types(parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any], key: str) -> None:
    """Refuse arguments of another type than the parameter's, where it is bool, int, float or str.

    A parameter whose default is None takes null too. The arguments are those of :func:`check_arguments`.

    Raises:
        InputError: With the key, the value and the expected type.
    """
    for name, value in arguments.items():
        annotation = parameters[name].annotation if name in parameters else None
        types, expected = TYPES.get(getattr(annotation, "__name__", str(annotation)), (object, ""))
        wrong = not isinstance(value, types) or (isinstance(value, bool) and types not in (bool, object))
        infinite = isinstance(value, float) and not math.isfinite(value)
        if (wrong and not (value is None and parameters[name].default is None)) or (expected and infinite):
            raise InputError(f"{override(f'{key}.{name}', value)}: expected {expected}.")
