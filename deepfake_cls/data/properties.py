"""Properties of one image file that may give its class away: format, size, mode, compression, metadata."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from deepfake_cls.data.decode import DecodeError, decode

# The luminance table of the JPEG standard (ITU-T T.81, table K.1), in the order of its rows.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ]
)
_C2PA = b"c2pa"  # the label of a manifest store, in the JUMBF boxes of any file format (C2PA specification 2.1, 11.1)


@dataclass(frozen=True)
class Properties:
    """What a classifier could know about an image file without looking at a pixel, and a digest of the pixels.

    Attributes:
        bytes: Size of the file.
        format: ``PNG``, ``JPEG``, ..., by content, not by suffix; empty if it is not an image.
        mode: Pillow's mode: ``RGB``, ``RGBA``, ``L``, ``P``, ...
        height: In pixels, after the orientation of the EXIF data is applied; 0 if it is not an image.
        width: See ``height``.
        quality: Estimated quality of a JPEG file, 1 to 100; 0 for other formats.
        exif: Whether the file has EXIF data.
        text: Whether it has text, such as PNG's tEXt chunks, in which some generators write the prompt.
        profile: Whether it has a colour profile.
        c2pa: Whether it contains a C2PA manifest (content credentials).
        alpha: ``none``, ``constant`` (one value in the whole image), or ``varied``.
        digest: SHA-256 of the shape and the decoded pixels, see :func:`digest_of_pixels`; empty if the file is refused.
        error: Why the file is refused; empty if it is not.
    """

    bytes: int = 0
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    quality: int = 0
    exif: bool = False
    text: bool = False
    profile: bool = False
    c2pa: bool = False
    alpha: str = "none"
    digest: str = ""
    error: str = ""


def read_properties(file: Path | bytes) -> Properties:
    """Read the properties of an image file: its path or its content. A file that is refused has an ``error``."""
    return read_image(file)[0]


def read_image(file: Path | bytes) -> tuple[Properties, NDArray[np.uint8] | None]:
    """Read the properties of an image file and its pixels, uint8 (H, W, 3 or 4); None if it is refused."""
    header: dict[str, object] = {}
    try:
        content = file if isinstance(file, bytes) else file.read_bytes()
        header = {"bytes": len(content)} | _header(content)
        pixels, _ = decode(content)
    except DecodeError as error:
        return Properties(**header, error=str(error)), None  # type: ignore[arg-type]
    except OSError as error:
        return Properties(error=f"cannot be read: {error.strerror or error}"), None
    alpha, digest = alpha_of(pixels), digest_of_pixels(pixels)
    height, width = pixels.shape[:2]
    found = header | {"height": height, "width": width}
    return Properties(**found, alpha=alpha, digest=digest), pixels  # type: ignore[arg-type]


def alpha_of(pixels: NDArray[np.uint8]) -> str:
    """``none``, ``constant`` or ``varied`` for an image, uint8 (H, W, 3 or 4)."""
    if pixels.shape[2] < 4:
        return "none"
    return "constant" if (pixels[..., 3] == pixels[0, 0, 3]).all() else "varied"


def digest_of_pixels(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """SHA-256 of the shape and the pixels, uint8 (H, W, C): 64 hex digits; an opaque alpha channel is left out."""
    if pixels.shape[2] == 4 and (pixels[..., 3] == 255).all():
        pixels = np.ascontiguousarray(pixels[..., :3])
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _header(content: bytes) -> dict[str, object]:
    """The properties that the header of a file gives; only C2PA's label is searched in the whole file."""
    found: dict[str, object] = {"c2pa": _C2PA in content}
    try:
        with Image.open(io.BytesIO(content)) as image:
            found |= {"format": image.format or "", "mode": image.mode, "height": image.height, "width": image.width}
            found |= {"exif": "exif" in image.info or bool(image.getexif()), "profile": "icc_profile" in image.info}
            found["text"] = "comment" in image.info or bool(getattr(image, "text", {}))
            if tables := getattr(image, "quantization", None):
                found["quality"] = jpeg_quality(np.array(tables[min(tables)], float))
            if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:  # turned by a quarter
                found["height"], found["width"] = image.width, image.height
    except Exception:  # Pillow's readers raise any exception for a damaged file; decode() gives the reason
        return found
    return found


def jpeg_quality(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    """Estimate the quality of a JPEG file from its luminance quantisation table (64,): 1 to 100.

    The reference software of the Independent JPEG Group scales the standard's table by 50 / q below quality 50 and by
    2 − q / 50 from there on. For tables of other software the result is the nearest quality of that scale.
    """
    scale = float(np.median(100 * table / _LUMINANCE))  # most entries are not clipped to 1 or 255
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return int(np.clip(round(quality), 1, 100))
