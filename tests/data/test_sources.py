"""Sources: ``data.root`` of the layouts of files, and layouts that a user registers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls.config import DataConfig, ImageFilesConfig, TrainConfig
from deepfake_cls.data import FileSource, Source, source
from deepfake_cls.data.images import open_images
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from tests.conftest import configure
from tests.data import own_layout
from tests.data.sample_files import noise, read
from tests.data.sample_files import read_refusal as refusal


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_a_root_is_required(name: str) -> None:
    for root in ("???", ""):
        with pytest.raises(InputError, match=f"data={name} needs the folder that contains the data: data.root=PATH"):
            read_manifest(ImageFilesConfig(name=name, root=root))


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_the_root_must_be_a_folder(tmp_path: Path, name: str) -> None:
    assert "does not exist" in refusal(tmp_path / "gone", name)
    (tmp_path / "file.zip").touch()
    assert "is not a folder; expected the folder that contains the data" in refusal(tmp_path / "file.zip", name)


def test_the_root_can_be_relative_or_start_with_a_tilde(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unibuc.parent)
    monkeypatch.setenv("HOME", str(unibuc.parent))
    expected = read(unibuc).split("train").paths
    assert read(Path(unibuc.name)).split("train").paths == expected
    assert read(Path("~") / unibuc.name).split("train").paths == expected


def test_the_other_layout_is_suggested(unibuc: Path) -> None:
    text = refusal(unibuc, "folder")
    assert "It looks like data=unibuc." in text
    for path in unibuc.glob("*.csv"):
        path.unlink()
    text = refusal(unibuc)
    assert "it has no train.csv (image_id,label) with the images in" in text
    assert "It looks like data=folder." in text


def test_an_empty_folder_is_refused_without_a_suggestion(tmp_path: Path) -> None:
    expected = "there are no images in <split>/<class>/, in <class>/, in <split>/ or in the folder itself."
    assert refusal(tmp_path, "folder").endswith(expected)
    assert "It looks like" not in refusal(tmp_path)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "imagenet").startswith("data.name=imagenet: unknown; expected one of folder, ")


# Layouts that a user registers


@pytest.fixture
def with_table(tmp_path: Path) -> Path:
    """Ten images and their table; odd images have the class "real"."""
    rows = [f"x,files/{row}.png,{'real' if row % 2 else 'gan'}" for row in range(10)]
    (tmp_path / "images.csv").write_text("\n".join(["source,path,class", *rows]), encoding="utf-8")
    (tmp_path / "files").mkdir()
    for row in range(10):
        Image.fromarray(noise(row)).save(tmp_path / "files" / f"{row}.png")
    return tmp_path


def test_a_layout_of_files_needs_one_method(with_table: Path) -> None:
    config = configure("train", TrainConfig, "data=folder", "data.name=paths", f"data.root={with_table}").data
    assert type(config) is ImageFilesConfig
    manifest = read_manifest(config)
    assert (manifest.name, manifest.classes, [*manifest.splits]) == ("paths", ("gan", "real"), ["train", "validation"])
    for name, count in (("train", 8), ("validation", 2)):
        split = open_images(manifest, name, config, progress=False)
        assert len(split) == count
        rows = [int(Path(image_id).stem) for image_id in split.ids]
        np.testing.assert_array_equal(split.store.images, [noise(row) for row in rows])
        assert split.labels.tolist() == [row % 2 for row in rows]


def test_a_layout_of_files_inherits_the_root_the_folds_and_the_errors(with_table: Path) -> None:
    validation_ids = [read(with_table, "paths", fold=fold, folds=5).split("validation").ids for fold in range(5)]
    assert sorted(Path(image_id).name for ids in validation_ids for image_id in ids) == [
        f"{row}.png" for row in range(10)
    ]
    assert "does not exist" in refusal(with_table / "gone", "paths")
    (with_table / "images.csv").write_text("path;class\n")
    assert "expected 'path,class'" in refusal(with_table, "paths")


def test_an_image_that_is_listed_twice_is_refused(with_table: Path) -> None:
    with (with_table / "images.csv").open("a") as file:
        file.write("\nx,files/3.png,gan")
    assert refusal(with_table, "paths") == "The split train has the image 'files/3.png' twice; remove one of them."


@pytest.mark.parametrize(
    ("labels", "paths", "message"),
    [((0, 1), ("a",), "a label and a path"), ((0,), ("a", "b"), "a label and a path"), ((0, 2), ("a", "b"), "-1 to 1")],
)
def test_a_layout_with_inconsistent_splits_is_refused(
    tmp_path: Path, labels: tuple[int, ...], paths: tuple[str, ...], message: str
) -> None:
    class Broken(FileSource):
        def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
            return ("x", "y"), [Split("train", ("1", "2"), np.array(labels), tuple(root / path for path in paths))]

    with pytest.raises(ValueError, match=message):
        Broken(ImageFilesConfig(name="broken", root=str(tmp_path))).manifest()


@dataclass
class RampConfig(DataConfig):
    name: str = "ramp"
    height: int = 4


@dataclass(frozen=True)
class Ramps(Reader):
    """Three images with the value ``row`` in all pixels; image ``height`` has one line more than the others."""

    height: int

    def __len__(self) -> int:
        return 3

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        return np.full((self.height + (row == self.height), 5, 3), row, np.uint8), False

    def where(self, row: int) -> str:
        return f"ramp {row}"

    def content(self) -> Iterator[str]:
        yield f"ramps {self.height}"


@source("ramp")
class RampSource(Source):
    Config = RampConfig
    config: RampConfig

    def manifest(self) -> Manifest:
        split = Split("train", ("a", "b", "c"), np.array([0, 1, 1]), None)
        return Manifest(self.config.name, ("x", "y"), {"train": split})

    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        return Ramps(self.config.height)


def test_a_layout_can_have_its_own_reader(tmp_path: Path) -> None:
    config = RampConfig(cache=str(tmp_path))
    assert open_images(read_manifest(config), "train", config, False).store.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    config.height = 2
    with pytest.raises(InputError, match=r"ramp 2 is 3×5 \(height×width\); expected 2×5"):
        open_images(read_manifest(config), "train", config, False)


def test_built_in_and_user_layouts_are_registered() -> None:
    assert {"folder", "synthetic", "unibuc", "paths", "ramp"} <= {*source}
    assert source["paths"] is own_layout.Paths


IMPORTS = """
import importlib, sys

for module in ("manifest", "sources", "folder", "unibuc", "pattern", "table", "hf", "synthetic", "readers", "store",
               "drawing"):
    for name in [name for name in sys.modules if name.split(".")[0] == "deepfake_cls"]:
        del sys.modules[name]
    importlib.import_module(f"deepfake_cls.data.{module}")
    print(module, *sorted({"torch", "lightning", "hydra", "rich", "scipy", "datasets"} & {*sys.modules}))
"""


def test_each_module_can_be_imported_first_and_imports_no_framework() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=300, check=True)
    modules = ["manifest", "sources", "folder", "unibuc", "pattern", "table", "hf", "synthetic", "readers", "store"]
    assert done.stdout.splitlines() == [*modules, "drawing scipy"]
