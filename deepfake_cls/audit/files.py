"""Checks of the files: whether they decode, their formats and metadata, their alpha channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls.audit.check import MAX_EXAMPLES, Check, Verdict, counts, first_counts, percent, shares_text
from deepfake_cls.audit.images import Images
from deepfake_cls.crops import Crops
from deepfake_cls.data.listing import stem_and_suffix
from deepfake_cls.data.sources import crops_of
from deepfake_cls.notation import plural

METADATA = {"exif": "EXIF", "text": "text", "profile": "profile", "c2pa": "C2PA"}
_KINDS = ("formats", "modes", "sizes")
_SAME = {"MPO": "JPEG"}  # a camera's MPO file begins with a JPEG file and has its suffix


def decoding(images: Images) -> Check:
    """Files that cannot be decoded."""
    bad = np.flatnonzero(~images.readable)
    skipped = images.source.skips_bad_images
    crops = crops_of(images.config)
    if not len(bad) and crops is not None:
        sizes = np.stack([images["height"], images["width"]], axis=1)
        small = np.flatnonzero(~crops.fits(sizes))
        if len(small):
            return _too_small(images, small, crops)
    return Check(
        "decoding",
        "ok" if not len(bad) else "warn" if skipped else "fail",
        f"All {plural(len(images), 'image')} can be decoded."
        if not len(bad)
        else f"{len(bad):,} of {plural(len(images), 'image')} cannot be decoded.",
        {"images": len(images), "refused": len(bad), "reasons": first_counts(counts(images["error"][bad].tolist()))},
        ""
        if not len(bad)
        else "Training omits them (data.on_error=skip)."
        if skipped
        else "Repair or remove these files, or omit them with data.on_error=skip.",
        [images.example(row) | {"reason": str(images["error"][row])} for row in bad[:MAX_EXAMPLES].tolist()],
        ("file", "reason"),
        [(images.file(row), str(images["error"][row])) for row in bad[:MAX_EXAMPLES].tolist()],
    )


def _too_small(images: Images, rows: NDArray[np.int64], crops: Crops) -> Check:
    """Images that are smaller than a crop."""
    reasons = [crops.refusal(int(images["height"][row]), int(images["width"][row])) for row in rows[:MAX_EXAMPLES]]
    return Check(
        "decoding",
        "warn" if crops.small == "skip" else "fail",
        f"{len(rows):,} of {plural(len(images), 'image')} are smaller than a crop (data.crop={crops.side}).",
        {"images": len(images), "refused": 0, "reasons": {}, "too_small": len(rows)},
        "Training omits them (data.small=skip)."
        if crops.small == "skip"
        else "Choose a smaller data.crop, omit them with data.small=skip, or extend them with data.small=pad.",
        [images.example(row) | {"reason": why} for row, why in zip(rows[:MAX_EXAMPLES].tolist(), reasons, strict=True)],
        ("file", "reason"),
        [(images.file(row), why) for row, why in zip(rows[:MAX_EXAMPLES].tolist(), reasons, strict=True)],
    )


def formats(images: Images) -> Check:
    """Formats, sizes, modes, JPEG qualities and metadata, by class."""
    rows = np.flatnonzero(images.readable & (images["format"] != ""))
    wrong = [row for row in rows.tolist() if _has_wrong_suffix(images, row)]
    numbers = _describe(images, rows)
    mixed = [f"{numbers[name]['different']:,} {name}" for name in _KINDS if numbers[name]["different"] > 1]
    if not len(rows):
        sentence = (
            "No file can be decoded." if (images["bytes"] > 0).any() else "The images are drawn, not read from files."
        )
    elif mixed:
        sentence = f"The files have {' and '.join(mixed)}."
    else:
        sentence = f"All files have the format {images['format'][rows[0]]}, the mode {images['mode'][rows[0]]} and"
        sentence += f" {_sizes(images, rows[:1])[0]} pixels."
    advice = "shortcut_metadata says whether they go with the class." if mixed else ""
    if numbers["sizes"]["different"] > 1:
        advice += " For images of mixed sizes use crops of native pixels (data.crop=128): resizing weakens the traces."
    if wrong:
        sentence += f" Files with the suffix of another format: {len(wrong):,}."
        advice += " Check where the files with a wrong suffix come from; they are read by their content."
    classes = [(name, own[np.isin(own, rows)]) for name, own in images.by_class()]
    numbers |= {"wrong_suffix": len(wrong)}
    numbers["by_class"] = {name: _describe(images, own) for name, own in classes}
    return Check(
        "formats",
        "warn" if mixed or wrong else "ok",
        sentence,
        numbers,
        advice.strip(),
        [images.example(row) | {"format": str(images["format"][row])} for row in wrong[:MAX_EXAMPLES]],
        ("class", "images", "format", "mode", "height×width", "JPEG quality", "metadata"),
        [(name, f"{len(own):,}", *_cells(images, own)) for name, own in classes if len(own)],
    )


def _has_wrong_suffix(images: Images, row: int) -> bool:
    expected = Image.registered_extensions().get(stem_and_suffix(images.file(row))[1])
    found = str(images["format"][row])
    return expected is not None and _SAME.get(expected, expected) != _SAME.get(found, found)


def _sizes(images: Images, rows: NDArray[np.int64]) -> list[str]:
    pairs = zip(images["height"][rows].tolist(), images["width"][rows].tolist(), strict=True)
    return [f"{height}×{width}" for height, width in pairs]


def _describe(images: Images, rows: NDArray[np.int64]) -> dict[str, Any]:
    """How often each property occurs among some images."""
    quality = images["quality"][rows]
    values = (images["format"][rows].tolist(), images["mode"][rows].tolist(), _sizes(images, rows))
    found = dict(zip(_KINDS, map(counts, values), strict=True))
    found["jpeg_quality"] = counts(map(str, quality[quality > 0].tolist()))
    described = {name: {"different": len(each), "images": first_counts(each)} for name, each in found.items()}
    return described | {name: int(images[name][rows].sum()) for name in METADATA}


def _cells(images: Images, rows: NDArray[np.int64]) -> list[str]:
    quality = images["quality"][rows]
    quality = quality[quality > 0]
    low, high = (int(quality.min()), int(quality.max())) if len(quality) else (0, 0)
    shares = {text: float(images[name][rows].mean()) for name, text in METADATA.items()}
    return [
        shares_text(images["format"][rows].tolist()),
        shares_text(images["mode"][rows].tolist()),
        shares_text(_sizes(images, rows), 2),
        "" if not len(quality) else str(low) if low == high else f"{low} to {high}",
        ", ".join(f"{name} {percent(share)}" for name, share in shares.items() if share),
    ]


def alpha(images: Images) -> Check:
    """Alpha channels: whether images have one, whether it is constant, and what that means for ``channels``."""
    rows = np.flatnonzero(images.readable)
    kinds = counts(images["alpha"][rows].tolist())
    classes = [(name, own[np.isin(own, rows)]) for name, own in images.by_class()]
    by_class = {name: counts(images["alpha"][own].tolist()) for name, own in classes}
    kinds_of = [{*found} for name, found in by_class.items() if name != "no label" and found]
    apart = len(kinds_of) > 1 and not {*kinds_of[0]}.intersection(*kinds_of[1:])
    verdict: Verdict = "ok" if len(kinds) < 2 and "varied" not in kinds else "fail" if apart else "warn"
    sentence, advice = f"Alpha channels: {shares_text(images['alpha'][rows].tolist())}.", ""
    if not {*kinds} - {"none"}:
        sentence = "No image has an alpha channel: channels=RGBA is the same as channels=RGB."
    elif {*kinds} == {"constant"}:
        sentence, advice = "The alpha channel of each image is constant.", "Train with channels=RGB."
    elif apart:
        sentence += " No kind occurs in all classes, so the channel gives classes away."
        advice = "Train with channels=RGB. With channels=RGBA, the default, the network sees this channel."
    else:
        advice = "With channels=RGBA, the default, the network sees this channel. Compare with channels=RGB."
    return Check(
        "alpha",
        verdict,
        sentence,
        {"images": kinds, "by_class": by_class},
        advice,
        columns=("class", "alpha channel"),
        rows=[(name, shares_text(images["alpha"][own].tolist())) for name, own in classes if len(own)]
        if len(kinds) > 1
        else (),
    )
