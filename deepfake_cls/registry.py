"""Parts that are chosen by name: networks, data sources, augmentations, metrics, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from deepfake_cls.errors import InputError

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
