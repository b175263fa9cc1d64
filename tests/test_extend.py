"""docs/extend.md: its code blocks form one module, and its commands run as printed, in a user's folder."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.checkpoints import read_checkpoint
from deepfake_cls.records import read_record
from tests.conftest import ROOT, call

TEXT = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
# As pip installs .venv/bin/deepfake-cls; Python does not add the current folder to sys.path for such a script.
SCRIPT = f"#!{sys.executable}\nfrom deepfake_cls.__main__ import main\nmain()\n"
GENERATORS = ("gan", "diffusion")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("console") for line in block.splitlines()]


def write_images(root: Path) -> None:
    """Write images in the document's layout: 16×16 pixels, one colour for each generator."""
    rng = np.random.default_rng(0)
    for colour, generator in enumerate(GENERATORS):
        for split, count in (("train", 8), ("val", 4)):
            for kind, channel in (("ai", colour), ("nature", 2)):
                folder = root / generator / split / kind
                folder.mkdir(parents=True)
                for index in range(count):
                    pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                    pixels[..., channel] += 120
                    Image.fromarray(pixels).save(folder / f"{index}.png")


class Project:
    """A user's folder with the document's module and images, and a shell in it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        (folder / "my_parts.py").write_text("".join(blocks("python")), encoding="utf-8")
        write_images(folder / "images")
        script = folder / "bin" / "deepfake-cls"
        script.parent.mkdir()
        script.write_text(SCRIPT)
        script.chmod(0o755)
        path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment["PYTHONPATH"] = str(ROOT)

    def shell(self, command: str) -> str:
        """Run a command and return its standard output."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> tuple[Path, list[str]]:
    """Run the commands but the last, edit the module, run the first again; the folder and the output of each."""
    project = Project(tmp_path_factory.mktemp("project"), cache_home)
    outputs = [project.shell(command) for command in COMMANDS[:-1]]
    with (project.folder / "my_parts.py").open("a") as file:
        file.write("\nprint('edited')\n")
    return project.folder, [*outputs, project.shell(COMMANDS[0])]


def test_each_part_has_about_as_many_lines_as_the_document_says() -> None:
    for block, most in zip(blocks("python"), (25, 25, 22, 8, 14), strict=True):
        assert len([line for line in block.splitlines() if line.strip()]) <= most


@pytest.mark.slow
def test_train_uses_the_network_and_the_layout(project: tuple[Path, list[str]]) -> None:
    folder, outputs = project
    record = read_record(folder / "runs" / "first")
    assert (record.status, record.config["plugins"]) == ("ok", ["my_parts"])
    assert record.config["model"] == {"name": "two_conv", "args": {"kernel": 5}}
    assert record.data["name"] == "by_generator"
    assert record.data["classes"] == ["nature", *sorted(GENERATORS)]
    assert record.data["sizes"] == {"train": 32, "validation": 16}
    assert "val_worst_recall" in record.metrics
    checkpoint = read_checkpoint(folder / "runs" / "first" / "checkpoints" / "last.ckpt")
    assert checkpoint["state_dict"]["network.body.0.weight"].shape == (8, 4, 5, 5)  # the width of scale=tiny
    next_command, label_command = outputs[0].strip().splitlines()[-2:]
    settings = "scale=tiny 'plugins=[my_parts]' model.name=two_conv model.args.kernel=5"
    assert next_command == f"next: deepfake-cls report data=by_generator data.root=images {settings}"
    start = "label images: deepfake-cls predict PHOTOS checkpoint=runs/first/checkpoints/last.ckpt"
    assert label_command == f"{start} 'plugins=[my_parts]'"


@pytest.mark.slow
def test_the_jobs_of_a_launcher_use_the_plugin(project: tuple[Path, list[str]]) -> None:
    folder, outputs = project
    records = [read_record(file.parent) for file in sorted((folder / "runs" / "cnn").glob("*/result.json"))]
    assert [(record.status, record.config["model"]["args"]) for record in records] == [("ok", {})] * 2
    assert {record.seed for record in records} == {0, 1}
    assert all([*record.config["augment"]] == ["flip", "rotation", "cutmix", "brightness"] for record in records)
    assert all(record.config["augment"]["brightness"] == {"strength": 0.1} for record in records)
    assert "job 1: plugins=[my_parts] model.name=two_conv data=by_generator data.root=images scale=tiny" in outputs[1]


@pytest.mark.slow
def test_the_report_has_the_metric_and_the_table(project: tuple[Path, list[str]]) -> None:
    folder, outputs = project
    records = [read_record(file.parent) for file in sorted((folder / "runs" / "cnn").glob("*/result.json"))]
    expected = {str(record.seed): f"{100 * record.metrics['val_worst_recall']:.1f}" for record in records}
    lines = outputs[2].splitlines()
    assert lines[0] == "### Table 12: Accuracy and worst recall"
    assert lines[2] == "| seed | accuracy % | worst recall % |"
    assert {cells[1]: cells[3] for cells in (re.split(r" ?\| ?", line) for line in lines[4:6])} == expected
    with (folder / "reports" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(0 <= float(row["val_worst_recall"]) <= 1 for row in rows)


@pytest.mark.slow
def test_predict_uses_the_network(project: tuple[Path, list[str]]) -> None:
    folder, _ = project
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert {row["label"] for row in rows} <= {"nature", *GENERATORS}
    assert rows[0]["image_id"] == "diffusion/val/ai/0.png"


@pytest.mark.slow
def test_an_edited_plugin_repeats_no_run_without_force(project: tuple[Path, list[str]]) -> None:
    _, outputs = project
    assert outputs[-1].startswith("edited\nruns/first: already done; force=true repeats it.")
    assert COMMANDS[-1] == f"{COMMANDS[0]} force=true"


@pytest.mark.slow
def test_a_checkpoint_without_its_plugin_is_refused_in_one_line(project: tuple[Path, list[str]]) -> None:
    folder, _ = project
    checkpoint = folder / "runs" / "first" / "checkpoints" / "last.ckpt"
    overrides = [f"checkpoint={checkpoint}", "data=folder", f"data.root={folder / 'images' / 'gan' / 'val'}"]
    done = call("deepfake_cls", "predict", *overrides, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: checkpoint={checkpoint}: model.name=two_conv: unknown; expected one of resnet, texturenet, timm."
        " A part of your own needs plugins=[MODULE].\n"
    )


def test_a_plugin_that_cannot_be_imported_is_refused_in_one_line() -> None:
    for module in ("my_prats", "my_parts"):
        Path("my_parts.py").write_text("import a_package_that_is_not_there\n")
        done = call("deepfake_cls", "train", f"plugins=[{module}]", check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: plugins=[{module}]: cannot be imported (No module named ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("entry", ["train", "predict"])
def test_a_layout_without_its_plugin_is_refused_in_one_line(entry: str) -> None:
    done = call("deepfake_cls", entry, "data=by_generator", "data.root=images", check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: data=by_generator: unknown; expected one of diffusionforensics, folder, genimage, hf, pattern, prompts,"
        " synthbuster, synthetic, table, unibuc. A layout of your own needs plugins=[MODULE].\n"
    )
