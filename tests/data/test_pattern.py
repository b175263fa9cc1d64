"""``data=pattern``: what a template matches, links, refusals, and the presets in ``conf/data``."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from deepfake_cls.config import PatternConfig, TrainConfig
from deepfake_cls.data import read_manifest
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.data.pattern import PatternSource
from deepfake_cls.errors import InputError
from tests.conftest import configure
from tests.data.sample_files import ATTRIBUTION, images, needs_attribution


def write(root: Path, *paths: str) -> None:
    for path in paths:
        images((root / path).parent, Path(path).name)


def read(root: Path, pattern: str, **options: object) -> Manifest:
    return read_manifest(PatternConfig(root=str(root), pattern=pattern, **options))  # type: ignore[arg-type]


def refusal(root: Path, pattern: str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(root, pattern, **options)
    return str(caught.value)


def table_of(manifest: Manifest) -> dict[str, tuple[str, str, str]]:
    """Split, class and group of each image, by its id."""
    return {
        image_id: (split.name, manifest.classes[label] if label >= 0 else "", (split.groups or split.ids)[row])
        for split in manifest.splits.values()
        for row, (image_id, label) in enumerate(zip(split.ids, split.labels.tolist(), strict=True))
    }


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{split}/{class}/**", "train/gan/a.png", ("train", "gan", None)),
        ("{split}/{class}/**", "train/gan/x/y/a.png", ("train", "gan", None)),
        ("{class}/{split}/*", "gan/Valid/a.png", ("validation", "gan", None)),
        ("{class}/{split}/*", "gan/holdout/a.png", ("holdout", "gan", None)),
        ("{class}/*", "gan/a.png", ("train", "gan", None)),
        ("*/{class}-*.png", "x/stable-diffusion-1.png", ("train", "stable", None)),
        ("*/{class}-[0-9]*", "x/stable-diffusion-1.png", ("train", "stable-diffusion", None)),
        ("*/{class}[!a-z]*", "x/gan4.png", ("train", "gan", None)),
        ("{group}/{class}_{group}.*", "cat/gan_cat.png", ("train", "gan", "cat")),
        ("**/{class}/*", "a/b/gan/1.png", ("train", "gan", None)),
        ("**/{class}/*", "gan/1.png", ("train", "gan", None)),
        ("images/{split}/*/{class}/**", "images/test/lsun/gan/1.png", ("test", "gan", None)),
        ("a.b/{class}/*", "a.b/gan/1.png", ("train", "gan", None)),
        ("{class}/x/*|{class}/y/{group}-*", "gan/y/cat-1.png", ("train", "gan", "cat")),
        ("{split}/*", "test/a.png", ("test", "", None)),
    ],
)
def test_a_template_names_split_class_and_group(
    tmp_path: Path, pattern: str, path: str, found: tuple[str, str, str | None]
) -> None:
    write(tmp_path, path)
    classes, (split,) = PatternSource(PatternConfig(root=str(tmp_path), pattern=pattern)).list_images(tmp_path)
    assert (split.name, split.ids, split.paths) == (found[0], (path,), (tmp_path / path,))
    assert classes == ((found[1],) if found[1] else ())
    assert split.labels.tolist() == [0 if found[1] else -1]
    assert split.groups == (None if found[2] is None else (found[2],))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{class}/*", "a/b/1.png"),
        ("{class}/*", "1.png"),
        ("a.b/{class}/*", "axb/gan/1.png"),
        ("{group}/{class}_{group}.*", "cat/gan_dog.png"),
        ("{class}-[0-9]*", "gan-x.png"),
        ("/{class}/*", "gan/1.png"),
        ("{class}/*.jpg", "gan/1.png"),
    ],
)
def test_a_template_that_matches_nothing_is_refused_with_an_example(tmp_path: Path, pattern: str, path: str) -> None:
    write(tmp_path, path)
    message = f'data.pattern="{pattern}": matches no image in {tmp_path}; an image there is {path}.'
    assert refusal(tmp_path, pattern) == message


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "gan/notes.txt", ".hidden/1.png")
    assert refusal(tmp_path, "{class}/*").endswith(f"matches no image in {tmp_path}, since there is none.")


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    message = 'data.pattern="{klass}/*": {klass} is unknown; expected {split}, {class} or {group}.'
    assert refusal(tmp_path, "{klass}/*") == message


def test_images_that_do_not_match_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path, "gan/1.png", "gan/2.png", "real/1.png", "real/2.png", "z/deeper/1.png", "stray.png", "gan/notes.txt"
    )
    manifest = read(tmp_path, "{class}/*")
    assert manifest.classes == ("gan", "real")
    message = f"data.pattern: does not match 2 of 6 images in {tmp_path}, such as stray.png; they are not used"
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [message]


def test_one_class_is_too_few(tmp_path: Path) -> None:
    write(tmp_path, "gan/1.png", "gan/2.png")
    manifest = read(tmp_path, "{class}/*")
    with pytest.raises(InputError, match=r"too few classes \(gan\); .* Labels come from {class} in data.pattern.$"):
        manifest.require_classes()


def test_splits_can_be_renamed(tmp_path: Path) -> None:
    for split in ("fit", "holdout", "Testing"):
        write(tmp_path, f"{split}/gan/1.png", f"{split}/real/1.png")
    manifest = read(tmp_path, "{split}/{class}/*", split_map={"fit": "train", "holdout": "validation"})
    assert {name: split.ids[0] for name, split in manifest.splits.items()} == {
        "train": "fit/gan/1.png",
        "validation": "holdout/gan/1.png",
        "test": "Testing/gan/1.png",
    }
    message = "data.split_map: the data has no split fitt; it has Testing, fit, holdout."
    assert refusal(tmp_path, "{split}/{class}/*", split_map={"fitt": "train"}) == message


def test_an_image_without_a_group_is_a_group_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "train/gan/cat-1.png", "train/gan/cat-2.png", "train/gan/3.png", "val/gan/1.png", "val/gan/2.png")
    manifest = read(tmp_path, "{split}/{class}/{group}-*|{split}/{class}/*")
    assert manifest.split("train").groups == ("train/gan/3.png", "cat", "cat")
    assert manifest.split("validation").groups == ("val/gan/1.png", "val/gan/2.png")


def test_links_out_of_the_root_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    write(tmp_path, "root/gan/1.png", "root/gan/2.png", "root/real/1.png", "root/real/2.png", "other/1.png")
    (root / "gan" / "3.png").symlink_to(root / "real" / "1.png")
    (root / "again").symlink_to(root)
    (root / "gan" / "notes.txt").symlink_to("/etc/hosts")
    assert len(table_of(read(root, "{class}/*"))) == 5
    assert f"{root}: the link again to a folder in it is ignored" in caplog.text
    link = tmp_path / "link"
    link.symlink_to(root)
    assert len(table_of(read(link, "{class}/*"))) == 5

    (root / "real" / "3.png").symlink_to(tmp_path / "other" / "1.png")
    (root / "dalle").symlink_to(tmp_path / "other")
    text = refusal(root, "{class}/*")
    assert text.startswith(
        f"{root} contains links that lead out of it; choose a data.root above the files, or copy them:"
    )
    assert f"\n  real/3.png leads to {tmp_path}/other/1.png" in text
    assert f"\n  dalle leads to {tmp_path}/other" in text


# Presets

PRESETS = {
    "genimage": (
        [
            f"{g}/{s}/{k}/{n}.png"
            for g in ("adm", "biggan")
            for s in ("train", "val")
            for k in ("ai", "nature")
            for n in "12"
        ],
        ("adm", "biggan", "real"),
        {"biggan/val/ai/1.png": ("validation", "biggan"), "adm/train/nature/2.png": ("train", "real")},
    ),
    "diffusionforensics": (
        [
            f"images/{split}/{content}/{name}/{number}.png"
            for split in ("train", "val", "test")
            for content, names in (("lsun_bedroom", ("adm", "real")), ("imagenet", ("adm", "real", "sdv1")))
            for name in names
            for number in "12"
        ],
        ("adm", "real", "sdv1"),
        {
            "images/test/imagenet/sdv1/1.png": ("test", "sdv1"),
            "images/val/lsun_bedroom/real/1.png": ("validation", "real"),
        },
    ),
    "synthbuster": (
        [f"{name}/{number}.png" for name in ("dalle2", "glide", "firefly") for number in range(4)],
        ("dalle2", "firefly", "glide"),
        {"glide/0.png": ("train", "glide")},
    ),
    "prompts": (
        [
            f"a {x}/{name}-{n}.png"
            for x in ("cat", "dog", "fox")
            for name in ("real", "sd-2-1", "sd-1.5")
            for n in (1, 12)
        ],
        ("real", "sd-1.5", "sd-2-1"),
        {"a cat/sd-2-1-1.png": ("train", "sd-2-1"), "a cat/sd-1.5-12.png": ("train", "sd-1.5")},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_a_tree_of_its_shape(tmp_path: Path, name: str) -> None:
    paths, classes, expected = PRESETS[name]
    write(tmp_path, *paths)
    config = configure("train", TrainConfig, f"data={name}", f"data.root={tmp_path}").data
    assert type(config) is PatternConfig
    manifest = read_manifest(config)
    found = table_of(manifest)
    assert manifest.classes == classes
    assert sorted(found) == sorted(paths)
    for path, (split, label) in expected.items():
        assert found[path][1] == label
        assert found[path][0] == split or (split == "train" and len(manifest.splits) == 2)
    if name == "prompts":
        assert {group for _, _, group in found.values()} == {"a cat", "a dog", "a fox"}
    assert config.real == ("real" if name in ("genimage", "diffusionforensics") else None)


@needs_attribution
@pytest.mark.real_data
def test_folders_of_generators_with_one_file_name_for_a_prompt() -> None:
    config = PatternConfig(root=str(ATTRIBUTION), pattern="{class}/{group}.*", min_class=5, on_small_class="exclude")
    manifest = read_manifest(config)
    found = table_of(manifest)
    names = {Path(image_id).stem for image_id in found}
    assert manifest.classes == tuple(
        sorted(path.name for path in ATTRIBUTION.iterdir() if len([*path.glob("*.*")]) >= 5)
    )
    assert {group for _, _, group in found.values()} == names
    assert len(names) < len(found) / len(manifest.classes) + 1
