"""Dataclass fields with the range of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.notation import override


@dataclass(frozen=True)
class Rule:
    """The allowed values of a field; None always passes, since the type says whether a field may be None.

    Attributes:
        passes: Whether a value is allowed.
        expected: The allowed values, as the message names them.
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
    """A field for finite numbers in a range.

    Args:
        default: Its default; without one the field is required.
        least: Smallest number.
        most: Largest number.
        above: Exclusive lower limit.
        below: Exclusive upper limit.
        expected: The range, as the message names it; made of the limits by default.
    """
    limits = [] if least is None else [f"{least:g} or more"]
    limits += [] if above is None else [f"a number above {above:g}"]
    limits += [] if most is None else [f"at most {most:g}"]
    limits += [] if below is None else [f"below {below:g}"]

    def passes(value: Any) -> bool:
        return bool(
            not isinstance(value, bool)
            and math.isfinite(value)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return field(default=default, metadata={"rule": Rule(passes, expected or ", ".join(limits))})


def one_of(*options: str) -> Any:
    """A field for one of several strings; the first is the default."""
    expected = " or ".join(options) if len(options) < 3 else f"{', '.join(options[:-1])} or {options[-1]}"
    return field(default=options[0], metadata={"rule": Rule(lambda value: value in options, expected)})


def check(config: Any, prefix: str = "") -> None:
    """Refuse values that a schema does not allow, also in nested schemas.

    Raises:
        InputError: With the key, the value and the allowed values.
    """
    for key, value, rule in _rules(config, prefix):
        try:
            passes = value is None or rule.passes(value)
        except TypeError:  # such as a string for a number
            passes = False
        if not passes:
            raise InputError(f"{override(key, value)}: expected {rule.expected}.")


def _rules(config: Any, prefix: str) -> Iterator[tuple[str, Any, Rule]]:
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from _rules(value, f"{prefix}{entry.name}.")
        elif "rule" in entry.metadata:
            yield f"{prefix}{entry.name}", value, entry.metadata["rule"]
