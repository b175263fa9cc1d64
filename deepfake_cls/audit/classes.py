"""Checks of classes and groups: balance, and whether images of one prompt or source are kept together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deepfake_cls.audit.check import MAX_EXAMPLES, MAX_PICTURES, Check, percent
from deepfake_cls.audit.images import Images
from deepfake_cls.audit.near import equal_values
from deepfake_cls.data.listing import stem_and_suffix
from deepfake_cls.notation import override, plural

IMBALANCE = 2.0  # images of the largest class by those of the smallest, from which on the balance is a warning
REPEATED = 0.1  # share of the labelled images whose name also occurs in another class, from which on it is a warning
STEM = r"([^/]+)\.[^./]+$"  # the name of a file without its suffix


def balance(images: Images) -> Check:
    """Images of each class in each split."""
    counts = {
        name: np.bincount(images.labels[(images.split == index) & (images.labels >= 0)], minlength=len(images.classes))
        for index, name in enumerate(images.splits)
    }
    labelled = {name: found for name, found in counts.items() if found.any()}
    total = np.sum([*labelled.values()], axis=0) if labelled else np.zeros(len(images.classes), np.int64)
    empty = [
        f"{images.classes[label]} has no image in {name}"
        for name in ("train", "validation")
        for label in (np.flatnonzero(labelled[name] == 0).tolist() if name in labelled else ())
    ]
    ratio = float(total.max() / max(total.min(), 1)) if total.any() else 0.0
    sentence = f"{plural(len(images.classes), 'class')}, {plural(int(total.sum()), 'labelled image')}."
    if ratio:
        large, small = (images.classes[int(pick(total))] for pick in (np.argmax, np.argmin))
        sizes = f"{total.min():,} ({small}) to {total.max():,} ({large})" if ratio > 1 else f"{total.min():,}"
        sentence += f" Images of a class: {sizes}."
    advice = "With recipe.class_weights=balanced each class has the same weight; also report val_balanced_acc."
    if empty:
        sentence += f" {'; '.join(empty[:3])}."
        advice = "Add images, or leave the class out: data.exclude=[NAME]."
    unbalanced = ratio >= IMBALANCE or len(images.classes) < 2
    return Check(
        "balance",
        "fail" if empty else "warn" if unbalanced else "ok",
        sentence,
        {
            "classes": len(images.classes),
            "ratio": ratio,
            "images": {name: dict(zip(images.classes, found.tolist(), strict=True)) for name, found in counts.items()},
        },
        advice if empty or unbalanced else "",
        columns=("class", *labelled),
        rows=[
            (name, *(f"{found[label]:,}" for found in labelled.values())) for label, name in enumerate(images.classes)
        ],
    )


def groups(images: Images) -> Check:
    """Groups across splits; without groups, file names that occur in several classes."""
    check = _names(images) if images.groups is None else _groups(images)
    if not images.problem:
        return check
    advice = "Training is refused. Change data.group_pattern or data.group_table if they make the groups too large."
    return replace(check, verdict="fail", sentence=images.problem, advice=advice)


def _groups(images: Images) -> Check:
    members = equal_values(np.array(images.groups), np.arange(len(images)))
    across = images.crossing(members, images.split)
    count = len({*(images.groups or ())})
    largest = max(map(len, members), default=1)
    sentence = f"{plural(count, 'group')} with up to {plural(largest, 'image')}"
    return Check(
        "groups",
        "fail" if across else "ok",
        f"{sentence}; {plural(len(across), 'group')} {'has' if len(across) == 1 else 'have'} images in several splits."
        if across
        else f"{sentence}; each is in one split.",
        {"groups": count, "images": len(images), "largest": largest, "across_splits": len(across)},
        "Images of one group are alike, so the accuracy on the other split is too high. Put each group into one split,"
        " or use folds, which keep groups together (data.fold=0 data.fold_of=all)."
        if across
        else "",
        [{"images": [images.example(row) for row in rows[:MAX_EXAMPLES]]} for rows in across[:MAX_EXAMPLES]],
        pictures=across[:MAX_PICTURES],
    )


def _names(images: Images) -> Check:
    stems = np.array([stem_and_suffix(image_id.rpartition("/")[2])[0] for image_id in images.ids])
    labelled = np.flatnonzero(images.labels >= 0)
    shared = images.crossing(equal_values(stems, labelled), images.labels)
    count = sum(map(len, shared))
    share = count / max(len(labelled), 1)
    numbers = {"groups": None, "images": len(images), "shared_names": len(shared), "images_with_shared_names": count}
    if share < REPEATED:
        return Check("groups", "ok", "No groups are configured, and file names do not repeat across classes.", numbers)
    pattern = override("data.group_pattern", STEM)
    across = images.crossing(shared, images.split)
    sentence = f"{percent(share)} of the images have a file name that also occurs in another class"
    if across:
        sentence += f"; {plural(len(across), 'such name')} {'is' if len(across) == 1 else 'are'} in several splits"
    return Check(
        "groups",
        "warn",
        f"{sentence}.",
        numbers | {"shared_names_across_splits": len(across), "group_pattern": STEM},
        "If equal names mean one prompt or one source image, keep these images together, or the accuracy is too high:"
        f" '{pattern}'. If the names only count the images, there is nothing to do.",
        [{"images": [images.example(row) for row in rows[:MAX_EXAMPLES]]} for rows in shared[:MAX_EXAMPLES]],
        pictures=shared[:MAX_PICTURES],
    )
