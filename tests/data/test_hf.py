"""``data=hf``: data sets that the package datasets writes, in its three forms."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image

from deepfake_cls.config import HfConfig
from deepfake_cls.data import Manifest, read_manifest
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.hf import HfSource
from deepfake_cls.data.images import open_images
from deepfake_cls.data.inspection import inspect
from deepfake_cls.data.sources import open_source
from deepfake_cls.errors import InputError
from tests.data.sample_files import noise

COUNT = 12
NAMES = ["sdxl", "flux", "real"]  # not in alphabetical order


def png(row: int, alpha: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(row, channels=4 if alpha else 3)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(start: int = 0, count: int = COUNT) -> Any:
    """A data set with images, a text column, a ClassLabel of one class too many and a prompt."""
    indices = range(start, start + count)
    values = {
        "image": [{"bytes": png(row), "path": f"photo {row}.png"} for row in indices],
        "model_name": [NAMES[row % 3] for row in indices],
        "label": [row % 3 for row in indices],
        "prompt": [f"prompt {row // 6}" for row in indices],
    }
    features = {
        "image": datasets.Image(),
        "model_name": Value("string"),
        "label": ClassLabel(names=[*NAMES, "unused"]),
        "prompt": Value("string"),
    }
    return Dataset.from_dict(values, Features(features))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set in three forms."""
    root = tmp_path_factory.mktemp("hf")
    train, test = rows(), rows(COUNT, 3)
    DatasetDict(train=train, test=test.remove_columns(["label", "model_name"])).save_to_disk(str(root / "saved"))
    train.save_to_disk(str(root / "one"))
    (root / "parquet").mkdir()
    train.to_parquet(str(root / "parquet" / "train-00000-of-00001.parquet"))
    test.to_parquet(str(root / "parquet" / "validation-00000-of-00001.parquet"))
    for row in range(COUNT):
        folder = root / "imagefolder" / "train" / NAMES[row % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.png").write_bytes(png(row))
    return root


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse and record connections."""
    tried: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: connect(None, address))  # type: ignore[arg-type]
    return tried


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def make(root: Path, **options: Any) -> HfConfig:
        return HfConfig(root=str(root), cache=str(tmp_path / "cache"), workers=2, **options)

    return make


def listing(root: Path) -> list[tuple[str, int, int]]:
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))]


def labels(manifest: Manifest) -> dict[str, str]:
    """Class of each image by its id, over all splits."""
    return {
        image_id: manifest.classes[label] if label >= 0 else ""
        for split in manifest.splits.values()
        for image_id, label in zip(split.ids, split.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("form", ["saved", "one", "parquet", "imagefolder"])
def test_each_form_is_read_without_network_and_without_writing(
    written: Path, config: Any, no_network: list[Any], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "theirs"))
    before = listing(written)
    root = written / form
    manifest = read_manifest(config(root))
    # The order of a ClassLabel is kept; imagefolder sorts its folders.
    assert manifest.classes == (("flux", "real", "sdxl") if form == "imagefolder" else ("sdxl", "flux", "real"))
    found = labels(manifest)
    for row in range(COUNT):
        name = NAMES[row % 3]
        assert found[f"train/{name}/{row}.png" if form == "imagefolder" else f"train-{row:06d}-photo {row}.png"] == name
    for name, split in manifest.splits.items():
        opened = open_images(manifest, name, config(root), progress=False)
        assert len(opened) == len(split)
        for row, image_id in enumerate(split.ids):
            number = int("".join(filter(str.isdigit, image_id.rpartition("/")[2].rpartition(" ")[2])))
            np.testing.assert_array_equal(opened.store.images[row], noise(number))
    assert set(manifest.splits) == {"train", "validation", *(["test"] if form == "saved" else [])}
    assert listing(written) == before
    assert not (tmp_path / "theirs").exists()
    assert no_network == []


def test_a_column_of_text_names_classes_and_another_names_groups(written: Path, config: Any) -> None:
    manifest = read_manifest(config(written / "parquet", label="model_name", group="prompt"))
    assert manifest.classes == ("flux", "real", "sdxl")
    assert labels(manifest)["train-000001-photo 1.png"] == "flux"
    train, validation = manifest.split("train"), manifest.split("validation")
    assert train.groups == ("prompt 0",) * 6 + ("prompt 1",) * 6
    assert validation.groups == ("prompt 2",) * 3


def test_the_rules_and_folds_hold(written: Path, config: Any) -> None:
    options = {"class_map": {"sdxl": "fake", "flux": "fake"}, "group_pattern": "photo ([0-9])", "exclude": ["real"]}
    manifest = read_manifest(config(written / "parquet", **options))
    assert manifest.classes == ("fake",)
    assert [len(split) for split in manifest.splits.values()] == [8, 2]
    assert manifest.split("train").groups == ("0", "1", "3", "4", "6", "7", "9", "1")
    folds = config(written / "parquet", fold=1, folds=5, fold_of="all")
    manifest = read_manifest(folds)
    # All images once; the rows of the split validation follow those of train.
    opened = [open_images(manifest, name, folds, progress=False) for name in ("train", "validation")]
    for split in opened:
        for row, image_id in enumerate(split.ids):
            np.testing.assert_array_equal(split.store.images[row], noise(int(image_id.partition("photo ")[2][:-4])))
    assert sum(map(len, opened)) == COUNT + 3


def test_changed_files_are_read_again(config: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for start in (0, 100):
        for name in ("train", "validation"):
            rows(start).to_parquet(str(root / f"{name}.parquet"))
        opened = open_images(read_manifest(config(root)), "train", config(root), progress=False)
        assert opened.ids[0] == f"train-000000-photo {start}.png"
        np.testing.assert_array_equal(opened.store.images[0], noise(start))


def test_a_root_that_is_a_link(written: Path, config: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written / "imagefolder")
    source = HfSource(config(tmp_path / "link"))
    _, (split,) = source.list_images(tmp_path / "link")
    assert split.ids[0] == "train/flux/1.png"
    np.testing.assert_array_equal(source.reader(split, None).read(0, None)[0], noise(1))


def test_labels_are_text_or_numbers(config: Any, tmp_path: Path) -> None:
    values = {"image": [png(row) for row in range(4)], "label": [10.0, 9.0, None, 10.0], "tags": [["a"]] * 4}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(values).to_parquet(str(tmp_path / "data" / "data.parquet"))
    classes, (split,) = HfSource(config(tmp_path / "data")).list_images(tmp_path / "data")
    assert (classes, split.labels.tolist()) == (("9", "10"), [1, 0, -1, 1])
    with pytest.raises(InputError, match="The column tags of the data set is a list; expected text or a number."):
        read_manifest(config(tmp_path / "data", label="tags"))


def test_a_class_of_minus_one_is_unknown(config: Any, tmp_path: Path) -> None:
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=["a", "b"])})
    values = {"image": [{"bytes": png(row), "path": None} for row in range(4)], "label": [0, -1, None, 1]}
    Dataset.from_dict(values, features).save_to_disk(str(tmp_path / "data"))
    _, (split,) = HfSource(config(tmp_path / "data")).list_images(tmp_path / "data")
    assert split.labels.tolist() == [0, -1, -1, 1]


def test_bytes_are_decoded_by_the_rules_of_image_files(config: Any, tmp_path: Path) -> None:
    contents = [png(0, alpha=True), b"", png(2)[:50], None]
    cells = [None if content is None else {"bytes": content, "path": None} for content in contents]
    features = Features({"image": datasets.Image(), "label": Value("int64")})
    Dataset.from_dict({"image": cells, "label": [10, 9, 9, 10]}, features).save_to_disk(str(tmp_path / "bad"))
    source = HfSource(config(tmp_path / "bad"))
    classes, (split,) = source.list_images(tmp_path / "bad")
    assert (classes, split.ids[3], split.labels.tolist()) == (("9", "10"), "train-000003", [1, 0, 0, 1])
    reader = source.reader(split, None)
    np.testing.assert_array_equal(reader.read(0, None)[0], noise(0, channels=4))
    assert (reader.encoded(0), reader.where(3)) == (png(0, alpha=True), f"row 3 of {tmp_path}/bad")
    for row, reason in ((1, "is empty"), (2, "cannot be decoded|damaged"), (3, "has no image")):
        with pytest.raises(DecodeError, match=reason):
            reader.read(row, None)
    assert [bool(error) for error in inspect(reader, tmp_path)["error"]] == [False, True, True, True]


def test_files_out_of_the_root_are_refused(config: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(0))
    for row in range(4):
        (tmp_path / "data" / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "ab"[row % 2] / f"{row}.png").write_bytes(png(row))
    (tmp_path / "data" / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    source = HfSource(config(tmp_path / "data"))
    _, (split,) = source.list_images(tmp_path / "data")
    reader = source.reader(split, None)
    assert split.ids == ("a/0.png", "a/2.png", "a/link.png", "b/1.png", "b/3.png")
    assert reader.encoded(0) == tmp_path / "data" / "a" / "0.png"
    with pytest.raises(
        DecodeError, match=f"is the file {tmp_path}/data/a/link.png, which is out of data.root: copy it"
    ):
        reader.encoded(2)


def test_the_properties_of_the_images_can_be_inspected(written: Path, config: Any, tmp_path: Path) -> None:
    source = open_source(config(written / "parquet"))
    found = inspect(source.reader(source.manifest().split("train"), None), tmp_path)
    assert {*found["format"]} == {"PNG"}
    assert found["bytes"].tolist() == [len(png(row)) for row in range(COUNT)]


def test_wrong_columns_and_folders_are_refused(written: Path, config: Any, tmp_path: Path) -> None:
    def refusal(root: Path, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            read_manifest(config(root, **options))
        return str(caught.value)

    names = "image, model_name, label, prompt"
    for key in ("label", "image", "group"):
        null = " or null" * (key != "image")
        message = (
            f"data.{key}=generator: the data set has no such column; its columns are {names}: write data.{key}=NAME"
        )
        assert refusal(written / "parquet", **{key: "generator"}) == f"{message}{null}."
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").startswith(f"{tmp_path}/empty cannot be read by data=hf (")
    # A script of the folder is not run.
    (tmp_path / "empty" / "empty.py").write_text("raise SystemExit('run')")
    assert "expected a folder of save_to_disk, parquet files, or an imagefolder." in refusal(tmp_path / "empty")


def test_without_the_package_the_message_says_what_to_install(
    written: Path, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError) as caught:
        read_manifest(config(written / "parquet"))
    assert str(caught.value) == "data=hf needs the package datasets: pip install 'deepfake-cls[hf]'."
