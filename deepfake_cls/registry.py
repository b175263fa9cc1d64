"""Parts that are chosen by name: networks, data sources, augmentations, metrics, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from deepfake_cls.errors import InputError

Name = TypeVar("Name", str, int)
Part = TypeVar("Part")
Registered = TypeVar("Registered")


class Registry(Generic[Name, Part]):
    """A decorator that registers a class or function under a name, and the mapping from names to parts.

    Args:
        key: The configuration key that chooses a part, such as ``model.name``; it stands in error messages.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._parts: dict[Name, Part] = {}

    def __call__(self, name: Name) -> Callable[[Registered], Registered]:
        """Register what is decorated.

        Raises:
            InputError: If the decorator has no name, or another part has it.
        """
        if not isinstance(name, str | int):
            raise InputError(f"{self.key}: a part is registered without a name; give one, as in @registry(NAME).")

        def register(part: Registered) -> Registered:
            known: Any = self._parts.get(name)
            new: Any = part
            # A module that is imported again may register its parts again.
            if known is not None and (known.__module__, known.__qualname__) != (new.__module__, new.__qualname__):
                raise InputError(
                    f"{self.key}={name} is registered twice, by {known.__module__}.{known.__qualname__} and by"
                    f" {new.__module__}.{new.__qualname__}; give one of them another name."
                )
            self._parts[name] = new
            return part

        return register

    def __getitem__(self, name: Name) -> Part:
        """The part of that name.

        Raises:
            InputError: If there is none.
        """
        if name not in self._parts:
            known = ", ".join(map(str, self))
            raise InputError(
                f"{self.key}={name}: unknown; expected one of {known}. A part of your own needs plugins=[MODULE]."
            )
        return self._parts[name]

    def __iter__(self) -> Iterator[Name]:
        return iter(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts
