"""Find what would mislead a classifier in a data set: ``python -m deepfake_cls.audit``."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config import AuditConfig, ImageFilesConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deepfake_cls.audit.check import Check
    from deepfake_cls.audit.images import Images

CROPS = (16, 128)  # smallest and usual side of a crop that the next command has, in pixels


def run(config: AuditConfig, sweep: bool) -> None:
    """Read the properties of all images, check them, and write ``audit.json`` and the page.

    Raises:
        InputError: With ``-m``; if the data does not follow its layout; or with ``strict`` if a check fails.
    """
    if sweep:
        raise InputError(ONCE["audit"])
    started = time.perf_counter()
    from deepfake_cls.audit.checks import checks_of
    from deepfake_cls.audit.images import read_images
    from deepfake_cls.audit.page import write_page
    from deepfake_cls.commands import command, shared_overrides
    from deepfake_cls.data.build import cores
    from deepfake_cls.files import require_writable, write_atomically
    from deepfake_cls.summary import time_text

    output = Path(config.output)
    require_writable(output / "audit.json")
    progress = config.trainer.progress and sys.stderr.isatty()
    images = read_images(config.data, progress)
    checks = checks_of(images, config.seed, config.trainer.threads or cores(), progress)
    document = {"schema": 1, "data": images.described(), "checks": [check.as_json() for check in checks]}
    write_atomically(output / "audit.json", json.dumps(document, indent=1).encode())
    train = command("train", shared_overrides("train", asdict(replace(config, data=trainable(config.data, images)))))
    write_page(output / "index.html", images, checks, train)
    print_checks(checks)
    print(f"{len(images):,} images audited in {time_text(time.perf_counter() - started)}")
    print(f"{output / 'index.html'}: the page, with figures and examples; {output / 'audit.json'}: the numbers")
    print(f"next: {train}", flush=True)
    failed = [check.name for check in checks if check.verdict == "fail"]
    if config.strict and failed:
        raise InputError(f"strict=true: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")


def trainable(data: Any, images: Images) -> Any:
    """The ``data`` group with the keys without which training would refuse these images: crops, unreadable files."""
    if not isinstance(data, ImageFilesConfig):
        return data
    sizes = {*zip(images["height"].tolist(), images["width"].tolist(), strict=True)} - {(0, 0)}
    if not images.readable.all():
        data = replace(data, on_error="skip")
    side = min((min(size) for size in sizes), default=0)
    if data.crop is None and data.size is None and len(sizes) > 1 and side >= CROPS[0]:
        data = replace(data, crop=min(side, CROPS[1]))
    return data


def print_checks(checks: Sequence[Check]) -> None:
    """Print a row for each check."""
    from deepfake_cls.escaping import printable
    from deepfake_cls.terminal import print_table

    rows = [(check.name, check.verdict, printable(check.sentence)) for check in checks]
    print_table(["check", "verdict", "finding"], rows, whole=["check", "verdict"])


if __name__ == "__main__":
    main("audit", AuditConfig, run)
