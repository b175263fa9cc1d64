"""Dataclasses whose fields say what values they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from deepfake_cls.errors import InputError


@dataclass(frozen=True)
class Rule:
    """Which values a field takes; None always passes, since a field that may be None says so by its type.

    Attributes:
        passes: Whether it takes a value.
        expected: The values in words, for the message.
    """

    passes: Callable[[Any], bool]
    expected: str


def number(
    default: Any = MISSING,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    expected: str | None = None,
) -> Any:
    """A field that takes numbers in a range.

    Args:
        default: Its default; without one the field must be given.
        least: Smallest number.
        most: Largest number.
        above: A limit that is itself too small.
        below: A limit that is itself too large.
        expected: The range in words, where these read better than what is made of the limits.
    """
    words = [] if least is None else [f"{least:g} or more"]
    words += [] if above is None else [f"a number above {above:g}"]
    words += [] if most is None else [f"at most {most:g}"]
    words += [] if below is None else [f"below {below:g}"]

    def passes(value: Any) -> bool:
        return bool(
            (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return field(default=default, metadata={"rule": Rule(passes, expected or ", ".join(words))})


def one_of(*options: str) -> Any:
    """A field that takes one of some words; the first one is its default."""
    words = " or ".join(options) if len(options) < 3 else f"{', '.join(options[:-1])} or {options[-1]}"
    return field(default=options[0], metadata={"rule": Rule(lambda value: value in options, words)})


def check(config: Any, prefix: str = "") -> None:
    """Refuse values that a schema does not allow, in nested schemas too.

    Raises:
        InputError: Naming the key, the value and what was expected.
    """
    for key, value, rule in _rules(config, prefix):
        try:
            passes = value is None or rule.passes(value)
        except TypeError:  # such as a word where a number is expected
            passes = False
        if not passes:
            raise InputError(f"{key}={value}: expected {rule.expected}.")


def _rules(config: Any, prefix: str) -> Iterator[tuple[str, Any, Rule]]:
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from _rules(value, f"{prefix}{entry.name}.")
        elif "rule" in entry.metadata:
            yield f"{prefix}{entry.name}", value, entry.metadata["rule"]
