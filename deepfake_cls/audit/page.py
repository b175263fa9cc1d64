"""The page of an audit: one HTML file, figures and small images included."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deepfake_cls.audit.check import Check
from deepfake_cls.audit.images import Images
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.escaping import printable
from deepfake_cls.files import write_atomically
from deepfake_cls.notation import plural
from deepfake_cls.templates import environment

PICTURE = 112  # pixels of the longer side of a small image
IN_A_ROW = 8  # small images of one group


def write_page(path: Path, images: Images, checks: Sequence[Check], train: str) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        images: All images.
        checks: Their checks.
        train: The command that trains on this data.
    """
    templates = environment("deepfake_cls.audit")
    templates.finalize = lambda value: printable(value, keep="\n\t") if type(value) is str else value
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in ("fail", "warn", "ok")}
    page = templates.get_template("audit.html").render(
        data=images.described(),
        counts=counts,
        checks=[_section(images, check) for check in checks],
        train=train,
    )
    write_atomically(path, page.encode())


def _section(images: Images, check: Check) -> dict[str, Any]:
    return {
        "check": check,
        "title": check.name.replace("_", " "),
        "sentence": check.sentence.replace(" %", "\N{NO-BREAK SPACE}%"),
        "numbers": json.dumps(check.numbers, indent=1, ensure_ascii=False),
        "pictures": [_row(images, rows) for rows in check.pictures],
    }


def _row(images: Images, rows: Sequence[int]) -> dict[str, Any]:
    """One group of images: small copies with their names, and the number of those that are not shown."""
    shown = []
    for row in rows[:IN_A_ROW]:
        about = images.example(row)
        shown.append(
            {"uri": _picture(images, row), "class": about["class"] or "no label", "split": about["split"]}
            | {"file": about["file"]}
        )
    more = len(rows) - len(shown)
    return {"images": shown, "more": f"and {plural(more, 'more image')}" if more else ""}


def _picture(images: Images, row: int) -> str:
    """A small copy of an image, without alpha, in a ``data:`` address; empty if it cannot be decoded any more."""
    try:
        image = Image.fromarray(images.pixels(row)[..., :3].copy())
    except DecodeError:
        return ""
    image.thumbnail((PICTURE, PICTURE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
