"""Decode one image file into one uint8 array, or refuse it with one clear reason.

Generator traces are in the pixels, so a conversion that needs a choice is refused. The rules:

| the file contains                                 | result                                                 |
|---------------------------------------------------|--------------------------------------------------------|
| ``RGB``, ``RGBA``, 8 bits                         | unchanged; JPEG and WebP give ``RGB``                  |
| ``RGB``, ``RGBA`` of 16 bits (PNG, TIFF)          | Pillow keeps the high byte of each value               |
| ``L`` (grey), ``1`` (black and white)             | replicated to three channels; ``1`` gives 0 and 255    |
| ``LA`` (grey with alpha)                          | replicated to ``RGBA``                                 |
| ``P``, ``PA`` (palette)                           | looked up: ``RGBA`` with transparency, else ``RGB``    |
| ``1``, ``L``, ``RGB`` with one transparent colour | ``RGBA``: alpha 0 at that colour, 255 elsewhere        |
| ``CMYK``, ``LAB``, ``HSV``, any other mode        | refused: conversion to RGB needs a choice              |
| ``I``, ``I;16``, ``F``                            | refused: conversion to 8 bits needs a choice           |
| several frames or pages                           | refused; for a camera's MPO file, the first frame      |
| EXIF orientation                                  | applied before the size is checked                     |
| colour profile, gamma                             | ignored: the stored values are used                    |
| another size than expected                        | refused; with ``resize``, resampled by Lanczos         |
| more than ``MAX_PIXELS`` pixels                   | refused before decoding, whatever Pillow's limit is    |
| nothing, half a file, not an image                | refused                                                |
| PostScript, PDF, WMF, MPEG, GRIB, HDF5, ...       | refused: Pillow needs another program to render them   |
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

DECODE_VERSION = 1
"""Increase it when a rule above changes the pixels: cached images are then decoded again."""

MAX_PIXELS = 64_000_000
"""Largest height × width that is decoded (8000×8000): a small file can declare a size that fills the memory."""

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
_COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_NOT_RASTER = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})


class DecodeError(Exception):
    """The reason why an image file is refused, without its name, such as ``is empty (0 bytes)``."""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case with their dot."""
    formats = set(_formats())
    return frozenset(s.lower() for s, name in Image.registered_extensions().items() if name in formats)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # Pillow tries its readers in this order, and some parse a header before they refuse a file. With the common
    # formats first, decoding a WebP image of 100×100 takes four fifths of the time.
    return (*_COMMON, *(name for name in Image.ID if name not in _NOT_RASTER and name not in _COMMON))


def decode(
    file: str | Path | bytes,
    size: tuple[int, int] | None = None,
    *,
    resize: bool = False,
    reencode: str | None = None,
) -> tuple[NDArray[np.uint8], bool]:
    """Decode an image file by the rules of this module.

    Args:
        file: Its path or its content.
        size: Height and width of the array; None accepts any.
        resize: Resize an image of another size instead of refusing it.
        reencode: Format and quality, such as ``jpeg:90``, in which the result is encoded and decoded again; None keeps
            the pixels. An alpha channel stays as it is.

    Returns:
        The image, uint8 (H, W, 3), or (H, W, 4) if the file has an alpha channel or a transparent colour; and
        whether it was resized.

    Raises:
        DecodeError: If the file is refused; the message is the reason.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats()) as opened:
            _check_header(opened)
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            image = _to_rgb(opened)
            resized = size is not None and (image.height, image.width) != size
            if size is not None and resized:
                if not resize:
                    raise DecodeError(wrong_size((image.height, image.width), size))
                image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            pixels = np.asarray(image)
            return pixels if reencode is None else _reencoded(pixels, reencode), resized
    except (DecodeError, MemoryError):
        raise
    except FileNotFoundError:
        raise DecodeError("does not exist") from None
    except UnidentifiedImageError:
        raise DecodeError(_unidentified(file)) from None
    except Image.DecompressionBombError as error:
        raise DecodeError(f"{error}; expected at most {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's readers raise any exception for a damaged file
        raise DecodeError(f"cannot be decoded: {error or type(error).__name__}") from None


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeError(
            f"declares {height}×{width} pixels; expected at most {MAX_PIXELS:,}: scale it down, unless the file is "
            "damaged or hostile"
        )
    if image.mode not in _MODES:
        raise DecodeError(f"has mode {image.mode}; expected grey, palette, RGB or RGBA of 8 bits: convert it first")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames: Any = getattr(image, "n_frames", "several")
        raise DecodeError(f"contains {frames} frames; expected one: save one frame as a file of its own")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "1" and image.info.get("transparency"):
        image.info["transparency"] = 255  # Pillow before 12.1 leaves a 1, but the pixels are 0 and 255
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _reencoded(pixels: NDArray[np.uint8], reencode: str) -> NDArray[np.uint8]:
    image_format, _, quality = reencode.partition(":")
    try:
        return encode_again(pixels, image_format.upper(), int(quality))
    except (OSError, ValueError) as error:  # WebP and JPEG have a largest height and width
        raise DecodeError(f"cannot be encoded as {reencode}: {error or type(error).__name__}") from None


def encode_again(pixels: NDArray[np.uint8], image_format: str, quality: int) -> NDArray[np.uint8]:
    """Encode an image by a lossy codec, and decode it again.

    Args:
        pixels: uint8 (H, W, 3 or 4); alpha stays as it is.
        image_format: ``JPEG`` (4:2:0, Pillow's default) or ``WEBP``.
        quality: 1 to 100.

    Returns:
        uint8 (H, W, 3 or 4).
    """
    with Image.open(io.BytesIO(encoded(pixels, image_format, quality)), formats=[image_format]) as image:
        decoded = np.asarray(image)
    return decoded if pixels.shape[2] == 3 else np.concatenate([decoded, pixels[..., 3:]], axis=2)


def encoded(pixels: NDArray[np.uint8], image_format: str, quality: int) -> bytes:
    """The file of an image, see :func:`encode_again`, without its alpha channel."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., :3])).save(buffer, image_format, quality=quality)
    return buffer.getvalue()


def wrong_size(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """The reason why an image of another size is refused; :func:`size_in` reads it."""
    return f"is {found[0]}×{found[1]} (height×width); expected {expected[0]}×{expected[1]}"


def size_in(reason: str) -> tuple[int, int] | None:
    """The size of the image in a reason of :func:`wrong_size`; None for other reasons."""
    match = re.match(r"is (\d+)×(\d+) \(height×width\)", reason)
    return (int(match[1]), int(match[2])) if match else None


def _unidentified(file: str | Path | bytes) -> str:
    try:
        empty = not (file if isinstance(file, bytes) else Path(file).stat().st_size)
    except OSError:
        empty = False
    return "is empty (0 bytes)" if empty else "is not an image that can be read, or is damaged"
