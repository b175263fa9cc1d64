"""Each row of the table in decode.py, and each way in which a file can be bad."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from deepfake_cls.data import decode as module
from deepfake_cls.data.decode import DecodeError, decode, image_suffixes

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)  # (H, W, 3), no symmetry
GREY = RGB[..., 0]


def saved(path: Path, pixels: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png(path: Path, header: bytes, data: bytes = b"") -> Path:
    """A PNG file, chunk by chunk: for what Pillow does not write itself."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def reason(path: Path, size: tuple[int, int] | None = None) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(path, size)
    return str(caught.value)


# What is taken


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("webp", {"lossless": True}), ("bmp", {}), ("tif", {})])
def test_rgb_is_taken_as_it_is(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    image, resized = decode(saved(tmp_path / f"a.{suffix}", RGB, **options), (6, 9))
    assert image.dtype == np.uint8
    assert not resized
    np.testing.assert_array_equal(image, RGB)


def test_rgba_is_taken_as_it_is(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, GREY])
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", rgba))[0], rgba)


def test_jpeg_arrives_as_rgb(tmp_path: Path) -> None:
    red = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    image, _ = decode(saved(tmp_path / "a.jpg", red, quality=95))
    assert image.shape == (16, 16, 3)
    assert abs(image.astype(int) - red).max() < 6


def test_rgb_of_16_bits_keeps_the_high_byte(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in words)
    path = png(tmp_path / "a.png", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0), rows)
    np.testing.assert_array_equal(decode(path)[0], (words >> 8).astype(np.uint8))


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
    hit = np.all(pixels.reshape(6, 9, -1) == colour, axis=2)
    np.testing.assert_array_equal(image[..., 3], np.where(hit, 0, 255))
    np.testing.assert_array_equal(image[..., :3][~hit], np.broadcast_to(pixels.reshape(6, 9, -1), RGB.shape)[~hit])


@pytest.mark.parametrize("value", [0, 1])
def test_a_transparent_colour_of_black_and_white_becomes_alpha(tmp_path: Path, value: int) -> None:
    bits = GREY > 100
    image, _ = decode(saved(tmp_path / "a.png", bits, transparency=value))
    np.testing.assert_array_equal(image[..., 3], np.where(bits == bool(value), 0, 255))


def test_the_first_picture_of_a_camera_file_is_taken(tmp_path: Path) -> None:
    first, preview = np.full((16, 16, 3), 200, np.uint8), np.zeros((8, 8, 3), np.uint8)
    saved(tmp_path / "a.mpo", first, save_all=True, append_images=[Image.fromarray(preview)])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    np.testing.assert_array_equal(decode(tmp_path / "a.jpg")[0], first)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_orientation_is_applied_before_the_size_is_checked(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", RGB, exif=exif, **options)
    np.testing.assert_array_equal(decode(path, (9, 6))[0], np.rot90(RGB, -1))
    assert "is 9×6" in reason(path, (6, 9))


def test_a_colour_profile_is_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(decode(saved(tmp_path / "a.png", RGB, icc_profile=profile))[0], RGB)


def test_resize_uses_lanczos_and_says_so(tmp_path: Path) -> None:
    image, resized = decode(saved(tmp_path / "a.png", RGB), (12, 5), resize=True)
    assert resized
    np.testing.assert_array_equal(image, Image.fromarray(RGB).resize((5, 12), Image.Resampling.LANCZOS))


def test_resize_leaves_an_image_of_that_size_alone(tmp_path: Path) -> None:
    image, resized = decode(saved(tmp_path / "a.png", RGB), (6, 9), resize=True)
    assert not resized
    np.testing.assert_array_equal(image, RGB)


def test_suffixes_are_those_of_images() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".gif"} <= image_suffixes()
    assert not {".eps", ".pdf", ".wmf", ".txt", ".csv", ".h5", ""} & image_suffixes()


# What is refused


def test_another_size_is_refused_with_both_remedies(tmp_path: Path) -> None:
    assert reason(saved(tmp_path / "a.png", RGB), (100, 80)) == (
        "is 6×9 (height×width); 100×80 is expected: give data.size=[6,9] if all are to be so, or resize with "
        "data.resize=true"
    )


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "a.tif"), ("CMYK", "a.jpg"), ("LAB", "a.tif"), ("I", "a.tif")],
)
def test_a_mode_that_needs_a_choice_is_refused(tmp_path: Path, mode: str, name: str) -> None:
    if mode == "LAB":
        Image.new("LAB", (4, 4)).save(tmp_path / name)
    else:
        saved(tmp_path / name, GREY if mode == "I" else RGB, mode)
    assert reason(tmp_path / name).startswith(f"has mode {mode}; grey, palette, RGB and RGBA of 8 bits are read")


@pytest.mark.parametrize(("dtype", "name"), [(np.uint16, "a.png"), (np.uint16, "a.tif"), (np.float32, "a.tif")])
def test_more_than_8_bits_of_grey_is_refused(tmp_path: Path, dtype: type, name: str) -> None:
    assert reason(saved(tmp_path / name, GREY.astype(dtype))).startswith(
        "has mode F;" if dtype is np.float32 else "has mode I"
    )


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert reason(tmp_path / f"a.{suffix}").startswith("holds 2 frames; one is expected")


@pytest.mark.parametrize("limit_of_pillow", [None, 10**9, 1])
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_of_pillow: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    path = png(tmp_path / "a.png", struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0))
    assert path.stat().st_size < 100
    assert "64,000,000" in reason(path)


def test_the_limit_of_pixels_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", RGB)
    monkeypatch.setattr(module, "MAX_PIXELS", 6 * 9)
    assert decode(path)[0].shape == RGB.shape
    monkeypatch.setattr(module, "MAX_PIXELS", 6 * 9 - 1)
    assert reason(path).startswith("claims 6×9 pixels; at most 53 are decoded")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path).startswith(("cannot be decoded: ", "is no image that can be read, or a damaged one"))


def test_a_damaged_byte_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert reason(path).startswith("cannot be decoded: ")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert reason(tmp_path / "a.png") == "is empty (0 bytes)"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("image_id,label\n")
    assert reason(tmp_path / "a.png") == "is no image that can be read, or a damaged one"


def test_a_drawing_program_is_not_run_for_a_file_that_only_claims_to_be_an_image(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", format="EPS")
    assert reason(tmp_path / "a.png") == "is no image that can be read, or a damaged one"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.png") == "does not exist"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in reason(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", RGB)
    path.chmod(0)
    assert "Permission denied" in reason(path)


def test_want_of_memory_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode(tmp_path / "a.png")
