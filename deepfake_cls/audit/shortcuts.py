"""Shortcut tests: how well a classifier that does not look at the traces of generators predicts the class."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepfake_cls.audit.check import Check, percent
from deepfake_cls.audit.files import METADATA
from deepfake_cls.audit.guess import Guess, Sample, draw_sample, guess
from deepfake_cls.audit.images import Images
from deepfake_cls.data.appearance import appearance_of
from deepfake_cls.data.decode import decode, encoded
from deepfake_cls.figures import accuracy_figure, spread_figure

FAIL = 0.1  # points above chance, at the lower end of the interval
SHOWN = 40  # classes in a figure
REENCODED = 2000  # images that are encoded again, since that takes a second pass
_METADATA = (
    "The file gives classes away, most of all by its {best}; a network can learn that in place of the traces of"
    " generators. Get all images in one format and size from their sources. If that is impossible: data.crop=128 hides"
    " the size of an image, data.reencode=jpeg:90 gives all images the same compression, and a test set with other"
    " formats shows what is left of the accuracy."
)
_FILESIZE = (
    "Bytes measure the compression and also how busy a picture is, so this alone is no fault. Call the audit with"
    " data.reencode=jpeg:90: what is left then is the content, the rest is the compression."
)
_COLOUR = (
    "The classes differ in what they show or in their colours. A network can learn that, and its accuracy then falls on"
    " images of other content. Compare with images of equal prompts or sources in all classes."
)


@dataclass(frozen=True, eq=False)
class Reencoded:
    """Images after ``data.reencode``.

    Attributes:
        sample: The images.
        bytes: Their size, (n, 1).
        colours: See ``Appearance``, (n, 67).
    """

    sample: Sample
    bytes: NDArray[np.float64]
    colours: NDArray[np.float64]


class Shortcuts:
    """The three tests, on the same images and folds.

    Args:
        images: All images.
        seed: Seed of sample, folds and forests.
        workers: Number of threads.
    """

    def __init__(self, images: Images, seed: int, workers: int) -> None:
        self.images, self.seed, self.workers = images, seed, workers
        labels = np.where(images.readable, images.labels, -1)
        # Copies of an image would be in several folds, so they are one unit where there are no groups.
        units = np.unique(images["digest"] if images.groups is None else images.groups, return_inverse=True)[1]
        self.sample = draw_sample(labels, units.astype(np.int64), seed)

    def metadata(self) -> Check:
        """Format, size, mode, JPEG quality and metadata; not a pixel."""
        name = "shortcut_metadata"
        if not self.sample.testable:
            return _untested(name)
        parts = {part: values for part, values in self._properties().items() if len(np.unique(values, axis=0)) > 1}
        if not parts:
            chance = self.sample.chance
            numbers = self._numbers(Guess(chance, chance, chance)) | {"alone": {}}
            sentence = "All files have equal properties, so a classifier that never looks at a pixel can only guess."
            return Check(name, "ok", sentence, numbers)
        alone = {part: self._guess(values, self.sample) for part, values in parts.items()}
        found = self._guess(np.concatenate([*parts.values()], axis=1), self.sample)
        bars = alone if len(parts) == 1 else {"all together": found} | alone
        excess = found.low - self.sample.chance
        best = max(alone, key=lambda part: alone[part].value)
        return Check(
            name,
            "fail" if excess >= FAIL else "warn" if excess > 0 else "ok",
            f"A classifier that never looks at a pixel is right in {self._text(found)}.",
            self._numbers(found) | {"alone": {part: asdict(one) for part, one in alone.items()}},
            _METADATA.format(best=best) if excess > 0 else "",
            figures=[self._figure(bars, "Balanced accuracy of a classifier on properties of the files")],
        )

    def filesize(self) -> Check:
        """The size of the file in bytes."""
        name = "shortcut_filesize"
        if not self.sample.testable:
            return _untested(name)
        sizes = self.images["bytes"][self.sample.rows].astype(np.float64)
        found = self._guess(sizes[:, None], self.sample, smooth=True)
        bars, again = {"bytes": found}, None
        if self.reencoded is not None:
            again = self._guess(self.reencoded.bytes, self.reencoded.sample, smooth=True)
            bars["bytes after data.reencode"] = again
        names = [self.images.classes[label] for label in np.unique(self.images.labels[self.sample.rows]).tolist()]
        by_class = {each: sizes[self.sample.labels == label] for label, each in enumerate(names[:SHOWN])}
        leaks = found.low > self.sample.chance
        return Check(
            name,
            "warn" if leaks else "ok",
            f"A classifier that only knows the number of bytes of the file is right in {self._text(found)}.",
            self._numbers(found, again),
            _FILESIZE if leaks else "",
            figures=[
                self._figure(bars, "Balanced accuracy of a classifier on the file size"),
                (spread_figure(by_class, "bytes"), "File size by class: median, quartiles, 5 % and 95 %"),
            ],
        )

    def colour(self) -> Check:
        """Mean colour and a colour histogram: what the pictures show, and not how they were made."""
        name = "shortcut_colour"
        if not self.sample.testable:
            return _untested(name)
        colours = self.images.appearance.colour[self.sample.rows].astype(np.float64)
        mean, found = self._guess(colours[:, :3], self.sample), self._guess(colours, self.sample)
        bars, again = {"mean colour and histogram": found, "mean colour": mean}, None
        if self.reencoded is not None:
            again = self._guess(self.reencoded.colours, self.reencoded.sample)
            bars["both after data.reencode"] = again
        leaks = found.low > self.sample.chance
        return Check(
            name,
            "warn" if leaks else "ok",
            f"A classifier that only knows the colours of the image is right in {self._text(found)}.",
            self._numbers(found, again) | {"mean_colour": asdict(mean)},
            _COLOUR if leaks else "",
            figures=[self._figure(bars, "Balanced accuracy of a classifier on the colours of a small version")],
        )

    @functools.cached_property
    def reencoded(self) -> Reencoded | None:
        """A part of the sample after ``data.reencode``; None without this key."""
        rule = getattr(self.images.config, "reencode", None)
        if rule is None:
            return None
        labels, units = (np.full(len(self.images), -1, np.int64) for _ in range(2))
        labels[self.sample.rows], units[self.sample.rows] = self.sample.labels, self.sample.units
        part = draw_sample(labels, units, self.seed, REENCODED)
        with ThreadPoolExecutor(self.workers) as pool:
            found = [*pool.map(lambda row: _encode_again(self.images.pixels(row), rule), part.rows.tolist())]
        sizes, colours = (np.array(values, np.float64) for values in zip(*found, strict=True))
        return Reencoded(part, sizes[:, None], colours)

    def _properties(self) -> Mapping[str, NDArray[np.float64]]:
        """The features of :meth:`metadata`, each (n, D), by the name of the property."""
        rows, images = self.sample.rows, self.images
        height, width = images["height"][rows], images["width"][rows]
        return {
            "format": _one_hot(images["format"][rows]),
            "size in pixels": np.stack([height, width, height * width], axis=1).astype(np.float64),
            "mode": _one_hot(images["mode"][rows]),
            "JPEG quality": images["quality"][rows, None].astype(np.float64),
            "metadata": np.stack([images[name][rows] for name in METADATA], axis=1).astype(np.float64),
        }

    def _guess(self, features: NDArray[np.float64], sample: Sample, smooth: bool = False) -> Guess:
        return guess(features, sample, self.seed, self.workers, smooth)

    def _numbers(self, found: Guess, after: Guess | None = None) -> dict[str, object]:
        numbers: dict[str, object] = {
            "balanced_accuracy": found.value,
            "low": found.low,
            "high": found.high,
            "chance": self.sample.chance,
            "images": len(self.sample.rows),
            "classes": self.sample.classes,
            "grouped": self.sample.grouped,
        }
        return numbers if after is None else numbers | {"after_reencode": asdict(after)}

    def _text(self, found: Guess) -> str:
        interval = f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f}"
        return f"{percent(found.value)} ({interval}; chance {percent(self.sample.chance)})"

    def _figure(self, found: Mapping[str, Guess], caption: str) -> tuple[Figure, str]:
        bars = [(name, one.value, one.low, one.high) for name, one in found.items()]
        return accuracy_figure(bars, self.sample.chance), caption


def _untested(name: str) -> Check:
    sentence = "Not tested: this needs two classes, each with two labelled images or groups."
    return Check(name, "warn", sentence, {"images": 0})


def _one_hot(values: NDArray[np.str_]) -> NDArray[np.float64]:
    return np.asarray(values[:, None] == np.unique(values), np.float64)


def _encode_again(pixels: NDArray[np.uint8], rule: str) -> tuple[int, NDArray[np.float32]]:
    """Bytes and colours of an image, uint8 (H, W, 3 or 4), after ``data.reencode``, such as ``jpeg:90``."""
    image_format, _, quality = rule.partition(":")
    content = encoded(pixels, image_format.upper(), int(quality))
    return len(content), appearance_of(decode(content)[0]).colour[0]
