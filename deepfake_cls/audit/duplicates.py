"""Checks of duplicates: equal pixels, images that look the same, and such images with different labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepfake_cls.audit.check import MAX_EXAMPLES, MAX_PICTURES, Check
from deepfake_cls.audit.images import Images
from deepfake_cls.audit.near import CORRELATION, DISTANCE
from deepfake_cls.notation import plural

_LEAK = (
    "The accuracy on the other split is too high, since a network has seen these images. Keep one image of each group,"
)
_EXACT = f"{_LEAK} or let the validation images be cut from train, which keeps exact duplicates together."
_NEAR = (
    f"{_LEAK} or name the groups in a table (data.group_table=FILE) and let the validation images be cut from train."
)
_WITHIN = "Keep one image of each group: copies count several times in training and scores."


def exact_duplicates(images: Images) -> Check:
    """Images with equal pixels, whatever their file format."""
    return _check("exact_duplicates", images, images.exact, "No two images have equal pixels.", _EXACT, {})


def near_duplicates(images: Images) -> Check:
    """Images that look the same: their perceptual hashes and their thumbnails are close."""
    limits = {"most_different_bits": DISTANCE, "least_correlation": CORRELATION}
    return _check("near_duplicates", images, images.near, "No two images look the same.", _NEAR, limits)


def _check(
    name: str, images: Images, groups: Sequence[Sequence[int]], clean: str, leak: str, numbers: dict[str, Any]
) -> Check:
    across = images.crossing(groups, images.split)
    classes = images.crossing(groups, images.labels)
    count = sum(map(len, groups))
    first = {rows[0] for rows in across}
    shown = [*across, *(rows for rows in groups if rows[0] not in first)]
    sentence = f"{plural(count, 'image')} in {plural(len(groups), 'group')} of {name.replace('_', ' ')}"
    sentence += f"; {plural(len(across), 'group')} across splits, {len(classes):,} across classes."
    return Check(
        name,
        "fail" if across else "warn" if groups else "ok",
        sentence if groups else clean,
        {
            "images": count,
            "groups": len(groups),
            "across_splits": len(across),
            "across_classes": len(classes),
            **numbers,
        },
        leak if across else _WITHIN if groups else "",
        _examples(images, shown),
        pictures=shown[:MAX_PICTURES],
    )


def label_conflicts(images: Images) -> Check:
    """Duplicates with different labels."""
    exact = images.crossing(images.exact, images.labels)
    first = {rows[0] for rows in exact}
    near = [rows for rows in images.crossing(images.near, images.labels) if not first.intersection(rows)]
    shown = [*exact, *near]
    parts = [f"{plural(len(found), 'group')} of {noun}" for found, noun in ((exact, "exact"), (near, "near")) if found]
    return Check(
        "label_conflicts",
        "fail" if exact else "warn" if near else "ok",
        f"{' and '.join(parts)} duplicates {'has' if len(shown) == 1 else 'have'} images of different classes."
        if shown
        else "No duplicates have different labels.",
        {"exact": len(exact), "near": len(near)},
        "Look at these images: correct the labels, or remove them." if shown else "",
        _examples(images, shown),
        pictures=shown[:MAX_PICTURES],
    )


def _examples(images: Images, groups: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    return [{"images": [images.example(row) for row in rows[:MAX_EXAMPLES]]} for rows in groups[:MAX_EXAMPLES]]
