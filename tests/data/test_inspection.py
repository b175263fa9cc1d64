"""Properties of image files, and the table of them that is cached."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.appearance import appearance_of
from deepfake_cls.data.inspection import Inspection, inspect, inspect_pixels
from deepfake_cls.data.properties import Properties, read_properties
from deepfake_cls.data.readers import Files
from deepfake_cls.data.sources import open_source
from tests.data.sample_files import noise


def encoded(pixels: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 90, 95, 100])
def test_the_quality_of_a_jpeg_file_is_estimated(quality: int) -> None:
    found = read_properties(encoded(noise(0, 16, 24), "JPEG", quality=quality))
    assert (found.format, found.mode, found.height, found.width) == ("JPEG", "RGB", 16, 24)
    assert abs(found.quality - quality) <= 1


def test_metadata_is_found() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = 6  # turned by a quarter
    found = read_properties(encoded(noise(0, 16, 24), "JPEG", exif=exif))
    assert (found.exif, found.text, found.height, found.width) == (True, False, 24, 16)
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a fox")
    found = read_properties(encoded(noise(0), "PNG", pnginfo=text))
    assert (found.exif, found.text, found.profile, found.c2pa, found.quality) == (False, True, False, False, 0)
    content = encoded(noise(0), "PNG", icc_profile=b"a profile")
    found = read_properties(content)
    assert (found.text, found.profile, found.c2pa, found.bytes) == (False, True, False, len(content))
    assert read_properties(content + b"jumbc2pa").c2pa


def test_equal_pixels_in_other_files_have_one_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(0), "PNG", compress_level=0))
    other = encoded(noise(0), "BMP")
    assert read_properties(path).digest == read_properties(other).digest
    assert read_properties(path).digest != read_properties(encoded(noise(1), "PNG")).digest
    opaque, clear = (np.dstack([noise(0), np.full(noise(0).shape[:2], alpha, np.uint8)]) for alpha in (255, 254))
    assert read_properties(encoded(opaque, "PNG")).digest == read_properties(path).digest
    assert read_properties(encoded(clear, "PNG")).digest != read_properties(path).digest
    turned = np.ascontiguousarray(noise(0).reshape(6, 5, 3))
    assert read_properties(path).digest != read_properties(encoded(turned, "PNG")).digest


@pytest.mark.parametrize(("alpha", "expected"), [(None, "none"), (255, "constant"), (3, "constant"), (-1, "varied")])
def test_alpha_channels_are_told_apart(alpha: int | None, expected: str) -> None:
    pixels = noise(0, channels=3 if alpha is None else 4)
    if alpha is not None and alpha >= 0:
        pixels[..., 3] = alpha
    assert read_properties(encoded(pixels, "PNG")).alpha == expected


def test_refused_files_have_an_error(tmp_path: Path) -> None:
    assert read_properties(tmp_path / "missing.png").error == "cannot be read: No such file or directory"
    cut = read_properties(encoded(noise(0), "PNG")[:-40])
    assert cut.error.startswith("cannot be decoded")
    assert (cut.format, cut.height, cut.digest) == ("PNG", 5, "")
    assert read_properties(b"").error == "is empty (0 bytes)"


def write(folder: Path, count: int) -> Files:
    for row in range(count):
        (folder / f"{row}.png").write_bytes(encoded(noise(row % 60), "PNG"))
    return Files(tuple(folder / f"{row}.png" for row in range(count)))


def rows(inspection: Inspection) -> list[Properties]:
    names = [*inspection.columns]
    return [
        Properties(**dict(zip(names, (inspection[name][row].item() for name in names), strict=True)))
        for row in range(len(inspection))
    ]


def test_a_table_of_all_images_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = write(tmp_path, 70)
    first = inspect(reader, tmp_path / "cache", 2)
    assert rows(first) == [read_properties(path) for path in reader.paths]
    assert first["digest"][0] == first["digest"][60]
    with monkeypatch.context() as patched:
        patched.setattr("deepfake_cls.data.inspection.read_image", None)  # no file is opened again
        assert rows(inspect(reader, tmp_path / "cache")) == rows(first)
    (table,) = (tmp_path / "cache").glob("inspection-*.npz")
    table.write_bytes(table.read_bytes()[:-100])
    assert rows(inspect(reader, tmp_path / "cache")) == rows(first)
    reader.paths[0].write_bytes(encoded(noise(99), "BMP"))
    assert inspect(reader, tmp_path / "cache")["format"][:2].tolist() == ["BMP", "PNG"]


def test_images_that_are_drawn_have_digests(tmp_path: Path) -> None:
    source = open_source(SyntheticConfig(train_size=50, image_size=16))
    found = inspect(source.reader(source.manifest().split("train"), None), tmp_path, 1)
    assert len({*found["digest"].tolist()}) == 50
    assert found["height"].tolist() == [16] * 50


def test_the_appearance_is_read_in_the_same_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = write(tmp_path, 40)
    reader.paths[1].write_bytes(b"")
    found, looks = inspect_pixels(reader, tmp_path / "cache", 2)
    expected = appearance_of(noise(0))
    assert (looks.hash[0], len(looks)) == (expected.hash[0], 40)
    np.testing.assert_array_equal(looks.thumbnail[0], expected.thumbnail[0])
    np.testing.assert_array_equal(looks.colour[0], expected.colour[0])
    assert not looks.thumbnail[1].any()
    with monkeypatch.context() as patched:
        patched.setattr("deepfake_cls.data.inspection.read_image", None)  # no file is opened again
        assert rows(inspect(reader, tmp_path / "cache")) == rows(found)  # as for a training
        again, cached = inspect_pixels(reader, tmp_path / "cache")
    assert rows(again) == rows(found)
    for name, column in vars(looks).items():
        np.testing.assert_array_equal(getattr(cached, name), column)
