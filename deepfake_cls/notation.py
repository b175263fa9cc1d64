"""Values in the notation of the command line, so that Hydra reads them back as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Words and paths that Hydra's grammar reads as text without quotes.
PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)(\.{0,2}/|[a-z_])[a-z0-9_./-]*", re.IGNORECASE | re.ASCII)


def override(key: str, value: object) -> str:
    """``key=value`` for Hydra; a shell needs quotes around it."""
    return f"{key}={value_text(value)}"


def value_text(value: object) -> str:
    """A value in Hydra's notation: ``null``, ``true``, ``[96,96]``, ``{a:1}``, ``"a, b"``."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key_text(key)}:{value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(value_text, value)) + "]"
    text = str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else str(value)
    if isinstance(value, int | float) or PLAIN.fullmatch(text):
        return text
    # Hydra reads backslashes as an escape only before a quote, and at the end.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', literal(text))
    return '"' + re.sub(r"(\\+)\Z", r"\1\1", escaped) + '"'


def _key_text(key: object) -> str:
    """A key of a mapping. Hydra reads no quotes there, but backslashes before the characters of its grammar."""
    return re.sub(r"([\\()\[\]{}:=,])", r"\\\1", str(key))


def literal(value: Any) -> Any:
    """The same value, in which OmegaConf finds no interpolation: ``${`` is escaped, in nested values too."""
    if isinstance(value, Mapping):
        return {key: literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def plural(count: int, noun: str) -> str:
    """``1 image``, ``1,234 images``, ``2 classes``."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
