"""Decoding: each rule of the table in decode.py, and each kind of bad file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from deepfake_cls.data import decode as decode_module
from deepfake_cls.data.decode import DecodeError, decode, image_suffixes

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)  # (H, W, 3), not symmetric
GREY = RGB[..., 0]


def saved(path: Path, pixels: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Write a PNG file chunk by chunk, for files that Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def reason(path: Path, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(path, size)
    return str(caught.value)


# Accepted files


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("webp", {"lossless": True}), ("bmp", {}), ("tif", {})])
def test_rgb_is_unchanged(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    image, resized = decode(saved(tmp_path / f"a.{suffix}", RGB, **options), (6, 9))
    assert image.dtype == np.uint8
    assert not resized
    np.testing.assert_array_equal(image, RGB)


def test_rgba_is_unchanged(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GREY])
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", rgba))[0], rgba)


def test_jpeg_gives_rgb(tmp_path: Path) -> None:
    red = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    image, _ = decode(saved(tmp_path / "a.jpg", red, quality=95))
    assert image.shape == (16, 16, 3)
    assert abs(image.astype(int) - red).max() < 6


def test_rgb_of_16_bits_keeps_the_high_byte(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = png(tmp_path / "a.png", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0), rows)
    np.testing.assert_array_equal(decode(path)[0], (values >> 8).astype(np.uint8))


def test_grey_is_replicated(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", GREY))[0], np.dstack([GREY] * 3))


def test_black_and_white_gives_0_and_255(tmp_path: Path) -> None:
    bits = GREY > 100
    expected = np.dstack([np.where(bits, 255, 0)] * 3)
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", bits))[0], expected)


def test_grey_with_alpha_becomes_rgba(tmp_path: Path) -> None:
    alpha = GREY[::-1]
    path = tmp_path / "a.png"
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(np.ascontiguousarray(alpha))]).save(path)
    np.testing.assert_array_equal(decode(path)[0], np.dstack([GREY, GREY, GREY, alpha]))


@pytest.mark.parametrize("transparency", [None, 1])
def test_palette_is_looked_up(tmp_path: Path, transparency: int | None) -> None:
    indices = (GREY % 3).astype(np.uint8)
    palette = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette.tobytes())
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    expected = palette[indices]
    if transparency is not None:
        expected = np.dstack([expected, np.where(indices == transparency, 0, 255).astype(np.uint8)])
    np.testing.assert_array_equal(decode(tmp_path / "a.png")[0], expected)


@pytest.mark.parametrize("pixels", [RGB, GREY])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    colour = pixels[2, 3]
    transparency = tuple(colour.tolist()) if pixels.ndim == 3 else int(colour)
    image, _ = decode(saved(tmp_path / "a.png", pixels, transparency=transparency))
    transparent = np.all(pixels.reshape(6, 9, -1) == colour, axis=2)
    np.testing.assert_array_equal(image[..., 3], np.where(transparent, 0, 255))
    expected = np.broadcast_to(pixels.reshape(6, 9, -1), RGB.shape)
    np.testing.assert_array_equal(image[..., :3][~transparent], expected[~transparent])


@pytest.mark.parametrize("value", [0, 1])
def test_a_transparent_colour_of_black_and_white_becomes_alpha(tmp_path: Path, value: int) -> None:
    bits = GREY > 100
    image, _ = decode(saved(tmp_path / "a.png", bits, transparency=value))
    np.testing.assert_array_equal(image[..., 3], np.where(bits == bool(value), 0, 255))


def test_the_first_frame_of_an_mpo_file_is_decoded(tmp_path: Path) -> None:
    first, preview = np.full((16, 16, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    saved(tmp_path / "a.mpo", first, save_all=True, append_images=[Image.fromarray(preview)])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    np.testing.assert_array_equal(decode(tmp_path / "a.jpg")[0], first)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation_is_applied_before_the_size_is_checked(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer has to rotate by 90° clockwise
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", RGB, exif=exif, **options)
    np.testing.assert_array_equal(decode(path, (9, 6))[0], np.rot90(RGB, -1))
    assert "is 9×6" in reason(path, (6, 9))


def test_a_colour_profile_is_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", RGB, icc_profile=profile))[0], RGB)


def test_resize_uses_lanczos_and_reports_it(tmp_path: Path) -> None:
    image, resized = decode(saved(tmp_path / "a.png", RGB), (12, 5), resize=True)
    assert resized
    np.testing.assert_array_equal(image, Image.fromarray(RGB).resize((5, 12), Image.Resampling.LANCZOS))


def test_resize_does_not_change_an_image_of_the_expected_size(tmp_path: Path) -> None:
    image, resized = decode(saved(tmp_path / "a.png", RGB), (6, 9), resize=True)
    assert not resized
    np.testing.assert_array_equal(image, RGB)


def test_image_suffixes_are_those_of_raster_formats() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".gif"} <= image_suffixes()
    assert not {".eps", ".pdf", ".wmf", ".txt", ".csv", ".h5", ""} & image_suffixes()


# Refused files


def test_another_size_is_refused_and_the_message_names_both_sizes(tmp_path: Path) -> None:
    assert reason(saved(tmp_path / "a.png", RGB), (100, 80)) == "is 6×9 (height×width); expected 100×80"


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "a.tif"), ("CMYK", "a.jpg"), ("LAB", "a.tif"), ("I", "a.tif")],
)
def test_a_mode_that_needs_a_choice_is_refused(tmp_path: Path, mode: str, name: str) -> None:
    if mode == "LAB":
        Image.new("LAB", (4, 4)).save(tmp_path / name)
    else:
        saved(tmp_path / name, GREY if mode == "I" else RGB, mode)
    assert reason(tmp_path / name).startswith(f"has mode {mode}; expected grey, palette, RGB or RGBA of 8 bits")


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "a.png"), (np.uint16, "a.tif"), (np.float32, "a.tif")])
def test_more_than_8_bits_of_grey_is_refused(tmp_path: Path, dtype: type, name: str) -> None:
    assert reason(saved(tmp_path / name, GREY.astype(dtype))).startswith(
        "has mode F;" if dtype is np.float32 else "has mode I"
    )


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert reason(tmp_path / f"a.{suffix}").startswith("contains 2 frames; expected one")


@pytest.mark.parametrize("pillow_limit", [None, 10**9, 1])
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillow_limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    path = png(tmp_path / "a.png", struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0))
    assert path.stat().st_size < 100
    assert "64,000,000" in reason(path)


def test_the_pixel_limit_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", RGB)
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 6 * 9)
    assert decode(path)[0].shape == RGB.shape
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 6 * 9 - 1)
    assert reason(path).startswith("declares 6×9 pixels; expected at most 53")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path).startswith(("cannot be decoded: ", "is not an image that can be read, or is damaged"))


def test_a_file_with_a_damaged_byte_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert reason(path).startswith("cannot be decoded: ")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert reason(tmp_path / "a.png") == "is empty (0 bytes)"


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("image_id,label\n")
    assert reason(tmp_path / "a.png") == "is not an image that can be read, or is damaged"


def test_postscript_with_the_suffix_of_an_image_is_not_rendered(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", format="EPS")
    assert reason(tmp_path / "a.png") == "is not an image that can be read, or is damaged"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.png") == "does not exist"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in reason(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", RGB)
    path.chmod(0)
    assert "Permission denied" in reason(path)


def test_a_memory_error_is_not_reported_as_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode(tmp_path / "a.png")


# Re-encoding


@pytest.mark.parametrize(("text", "options"), [("jpeg:30", {"format": "JPEG"}), ("webp:80", {"format": "WEBP"})])
@pytest.mark.parametrize("channels", [3, 4])
def test_images_are_encoded_again_and_alpha_stays(text: str, options: dict[str, str], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, channels), np.uint8)
    Image.fromarray(pixels).save("image.png")
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., :3].copy()).save(buffer, quality=int(text[5:]), **options)
    expected = np.dstack([np.array(Image.open(buffer)), pixels[..., 3:]])
    found, resized = decode("image.png", reencode=text)
    np.testing.assert_array_equal(found, expected)
    assert not resized
    assert not np.array_equal(found[..., :3], pixels[..., :3])


def test_an_image_that_its_codec_cannot_hold_is_refused() -> None:
    Image.new("RGB", (16_500, 2)).save("wide.png")
    with pytest.raises(DecodeError, match="cannot be encoded as webp:80"):
        decode("wide.png", reencode="webp:80")
    assert decode("wide.png", reencode="jpeg:80")[0].shape == (2, 16_500, 3)
