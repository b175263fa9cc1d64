"""All checks, in the order of ``audit.json``."""

from __future__ import annotations

from deepfake_cls.audit.check import Check
from deepfake_cls.audit.classes import balance, groups
from deepfake_cls.audit.duplicates import exact_duplicates, label_conflicts, near_duplicates
from deepfake_cls.audit.files import alpha, decoding, formats
from deepfake_cls.audit.images import Images
from deepfake_cls.audit.shortcuts import Shortcuts


def checks_of(images: Images, seed: int = 0, workers: int = 1) -> list[Check]:
    """Check a data set.

    Args:
        images: All its images.
        seed: Seed of the folds and of the forests of the shortcut tests.
        workers: Number of threads.
    """
    simple = (decoding, formats, alpha, balance, exact_duplicates, near_duplicates, label_conflicts, groups)
    shortcuts = Shortcuts(images, seed, workers)
    return [*(check(images) for check in simple), shortcuts.metadata(), shortcuts.filesize(), shortcuts.colour()]
