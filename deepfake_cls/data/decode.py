"""One image file in, one uint8 array out, or one clear reason why not.

Pixels are the evidence here, so no conversion that needs a choice is made in silence. The rules:

| the file holds                                    | what happens                                           |
|---------------------------------------------------|--------------------------------------------------------|
| ``RGB``, ``RGBA``, 8 bits                         | taken as it is; JPEG and WebP arrive as ``RGB``        |
| ``RGB``, ``RGBA`` of 16 bits (PNG, TIFF)          | Pillow keeps the high byte of each value               |
| ``L`` (grey), ``1`` (black and white)             | replicated to three channels; ``1`` gives 0 and 255    |
| ``LA`` (grey with alpha)                          | replicated to ``RGBA``                                 |
| ``P``, ``PA`` (palette)                           | looked up: ``RGBA`` with transparency, else ``RGB``    |
| ``1``, ``L``, ``RGB`` with one transparent colour | ``RGBA``: alpha 0 at that colour, 255 elsewhere        |
| ``CMYK``, ``LAB``, ``HSV``, any other mode        | refused: to make RGB of it needs a choice              |
| ``I``, ``I;16``, ``F``                            | refused: to make 8 bits of it needs a choice           |
| several frames or pages                           | refused; of a camera's MPO file the first is taken     |
| EXIF orientation                                  | applied, before the size is looked at                  |
| colour profile, gamma                             | ignored: the stored values are taken                   |
| another size than asked for                       | refused; with ``resize`` brought to it by Lanczos      |
| more than `MAX_PIXELS` pixels                     | refused before decoding, whatever Pillow's limit is    |
| nothing, half a file, no image                    | refused                                                |
| PostScript, PDF, WMF, MPEG, GRIB, HDF5, ...       | no images here: another program has to draw them       |
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

DECODE_VERSION = 1
"""Raised when a rule above changes what an image turns into: images decoded before are decoded again."""

MAX_PIXELS = 64_000_000
"""Largest height × width that is decoded (8000×8000): a small file can claim a size that fills the memory."""

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
_COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_NOT_RASTER = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})


class DecodeError(Exception):
    """The reason why an image file was refused, without its name: ``is empty (0 bytes)``."""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The lower-case suffixes, with dot, of the files that count as images."""
    formats = set(_formats())
    return frozenset(s.lower() for s, name in Image.registered_extensions().items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # Pillow asks its readers in this order, and some can only say no after they have parsed a header. With
    # the common ones first, a WebP image of 100×100 is decoded in four fifths of the time.
    return (*_COMMON, *(name for name in Image.ID if name not in _NOT_RASTER and name not in _COMMON))


def decode(
    path: str | Path, size: tuple[int, int] | None = None, *, resize: bool = False
) -> tuple[NDArray[np.uint8], bool]:
    """Decode an image file by the rules of this module.

    Args:
        path: The file.
        size: Height and width the array must have; None takes any.
        resize: Bring an image of another size to ``size``, instead of refusing it.

    Returns:
        The image, uint8 (H, W, 3), or (H, W, 4) where the file has an alpha channel or a transparent colour,
        and whether it was resized.

    Raises:
        DecodeError: The file was refused; the message is the reason.
    """
    try:
        with Image.open(path, formats=_formats()) as opened:
            _check_header(opened)
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            image = _to_rgb(opened)
            resized = size is not None and image.size != (size[1], size[0])
            if resized:
                image = _resize(image, size, resize)
            return np.asarray(image), resized
    except (DecodeError, MemoryError):
        raise
    except FileNotFoundError:
        raise DecodeError("does not exist") from None
    except UnidentifiedImageError:
        raise DecodeError(_unidentified(Path(path))) from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"{error}; at most {MAX_PIXELS:,} pixels are decoded") from None
    except Exception as error:  # Pillow's readers let any exception out of a damaged file
        raise DecodeError(f"cannot be decoded: {error or type(error).__name__}") from None


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"claims {height}×{width} pixels; at most {MAX_PIXELS:,} are decoded: scale it down first, if it "
            "is not a damaged or hostile file"
        )
    if image.mode not in _MODES:
        raise DecodeError(f"has mode {image.mode}; grey, palette, RGB and RGBA of 8 bits are read: convert it first")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames: Any = getattr(image, "n_frames", "several")
        raise DecodeError(f"holds {frames} frames; one is expected: save the one you mean as a file of its own")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "1" and image.info.get("transparency"):
        image.info["transparency"] = 255  # Pillow before 12.1 leaves a 1 there, which no pixel is
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _resize(image: Image.Image, size: tuple[int, int] | None, allowed: bool) -> Image.Image:
    assert size is not None
    height, width = size
    if not allowed:
        raise DecodeError(
            f"is {image.height}×{image.width} (height×width); {height}×{width} is expected: give "
            f"data.size=[{image.height},{image.width}] if all are to be so, or resize with data.resize=true"
        )
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _unidentified(path: Path) -> str:
    try:
        empty = path.stat().st_size == 0
    except OSError:
        empty = False
    return "is empty (0 bytes)" if empty else "is no image that can be read, or a damaged one"
