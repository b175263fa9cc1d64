"""All checks, in the order of ``audit.json``."""

from __future__ import annotations

import functools
from collections.abc import Callable

from deepfake_cls.audit.check import Check
from deepfake_cls.audit.classes import balance, groups
from deepfake_cls.audit.duplicates import exact_duplicates, label_conflicts, near_duplicates
from deepfake_cls.audit.files import alpha, decoding, formats
from deepfake_cls.audit.images import Images
from deepfake_cls.audit.shortcuts import Shortcuts
from deepfake_cls.data.build import progress_bar


def checks_of(images: Images, seed: int = 0, workers: int = 1, progress: bool = False) -> list[Check]:
    """Check a data set.

    Args:
        images: All its images.
        seed: Seed of the folds and of the forests of the shortcut tests.
        workers: Number of threads.
        progress: Show a progress bar.
    """
    shortcuts = Shortcuts(images, seed, workers)
    simple = (decoding, formats, alpha, balance, exact_duplicates, near_duplicates, label_conflicts, groups)
    steps: list[Callable[[], Check]] = [functools.partial(check, images) for check in simple]
    steps += [shortcuts.metadata, shortcuts.filesize, shortcuts.colour]
    checks = []
    with progress_bar(progress) as bar:
        task = bar.add_task("Checking", total=len(steps))
        for step in steps:
            checks.append(step())
            bar.advance(task)
    return checks
