"""Layouts by name: the root that those of files share, and a layout of the user's own."""

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
def test_a_root_is_needed(name: str) -> None:
    for root in ("???", ""):
        with pytest.raises(InputError, match=f"data={name} needs the folder that holds the data: data.root=PATH"):
            read_manifest(ImageFilesConfig(name=name, root=root))


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_the_root_must_be_a_folder(tmp_path: Path, name: str) -> None:
    assert "does not exist" in refusal(tmp_path / "gone", name)
    (tmp_path / "file.zip").touch()
    assert "is not a folder; give the folder that holds the data" in refusal(tmp_path / "file.zip", name)


def test_the_root_may_be_relative_or_in_the_home(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "there is no train.csv in it (image_id,label), with the images in" in text
    assert "It looks like data=folder." in text


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    assert "there are no images in <split>/<class>/, in <split>/ or in the folder itself." in refusal(
        tmp_path, "folder"
    )
    assert "It looks like" not in refusal(tmp_path)


def test_a_layout_must_be_known(tmp_path: Path) -> None:
    assert refusal(tmp_path, "imagenet").startswith("data.name=imagenet: unknown; expected one of folder, ")


# Layouts of the user's own


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Images 0 to 9 beside their table, odd ones of the class "real"."""
    rows = [f"x,files/{row}.png,{'real' if row % 2 else 'gan'}" for row in range(10)]
    (tmp_path / "images.csv").write_text("\n".join(["source,path,class", *rows]), encoding="utf-8")
    (tmp_path / "files").mkdir()
    for row in range(10):
        Image.fromarray(noise(row)).save(tmp_path / "files" / f"{row}.png")
    return tmp_path


def test_a_layout_of_files_needs_one_method(listed: Path) -> None:
    config = configure("train", TrainConfig, "data=folder", "data.name=paths", f"data.root={listed}").data
    assert type(config) is ImageFilesConfig
    manifest = read_manifest(config)
    assert (manifest.name, manifest.classes, [*manifest.splits]) == ("paths", ("gan", "real"), ["train", "validation"])
    for name, count in (("train", 8), ("validation", 2)):
        split = open_images(manifest, name, config, progress=False)
        assert len(split) == count
        rows = [int(Path(image_id).stem) for image_id in split.ids]
        np.testing.assert_array_equal(split.store.images, [noise(row) for row in rows])
        assert split.labels.tolist() == [row % 2 for row in rows]


def test_a_layout_of_files_has_the_root_the_folds_and_the_errors_of_all(listed: Path) -> None:
    held = [read(listed, "paths", fold=fold, folds=5).split("validation").ids for fold in range(5)]
    assert sorted(Path(image_id).name for ids in held for image_id in ids) == [f"{row}.png" for row in range(10)]
    assert "does not exist" in refusal(listed / "gone", "paths")
    (listed / "images.csv").write_text("path;class\n")
    assert "'path,class' is expected" in refusal(listed, "paths")


def test_an_image_that_is_listed_twice_is_refused(listed: Path) -> None:
    with (listed / "images.csv").open("a") as file:
        file.write("\nx,files/3.png,gan")
    assert refusal(listed, "paths") == "The split train has the image 'files/3.png' twice; remove one of them."


@pytest.mark.parametrize(
    ("labels", "paths", "said"),
    [((0, 1), ("a",), "a label and a path"), ((0,), ("a", "b"), "a label and a path"), ((0, 2), ("a", "b"), "-1 to 1")],
)
def test_a_layout_that_contradicts_itself_is_told(
    tmp_path: Path, labels: tuple[int, ...], paths: tuple[str, ...], said: str
) -> None:
    class Broken(FileSource):
        def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
            return ("x", "y"), [Split("train", ("1", "2"), np.array(labels), tuple(root / path for path in paths))]

    with pytest.raises(ValueError, match=said):
        Broken(ImageFilesConfig(name="broken", root=str(tmp_path))).manifest()


@dataclass
class RampConfig(DataConfig):
    name: str = "ramp"
    height: int = 4


@dataclass(frozen=True)
class Ramps(Reader):
    """Image ``row`` is ``row`` everywhere; one has another size than the rest."""

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


def test_a_layout_may_read_images_in_its_own_way(tmp_path: Path) -> None:
    config = RampConfig(cache=str(tmp_path))
    assert open_images(read_manifest(config), "train", config, False).store.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    config.height = 2
    with pytest.raises(InputError, match="ramp 2 has 3×5 pixels, 2×5 are expected"):
        open_images(read_manifest(config), "train", config, False)


def test_built_in_layouts_are_registered_and_the_others_too() -> None:
    assert {"folder", "synthetic", "unibuc", "paths", "ramp"} <= {*source}
    assert source["paths"] is own_layout.Paths


@pytest.mark.parametrize("module", ["manifest", "sources", "folder", "unibuc", "synthetic", "readers", "store"])
def test_each_module_can_be_imported_first_and_is_cheap(module: str) -> None:
    script = (
        f"import sys, deepfake_cls.data.{module}; print({{'torch', 'lightning', 'scipy', 'hydra'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
