"""The commands that the program prints: a shell runs them, or splits them before they are composed and checked."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from deepfake_cls import evaluate, knn, train
from deepfake_cls.commands import command, overrides_of
from deepfake_cls.config import SCHEMAS, EvaluateConfig, KnnConfig, TrainConfig
from deepfake_cls.overrides import from_hydra, split_positional, to_hydra
from deepfake_cls.report.study import declared
from tests.conftest import SMALL_DATA, SMALL_NET, configure

ROOT = 'it\'s $HOME, [my] "data"'  # the folder of the images


@dataclass
class Printed:
    """A folder with runs, and what the commands that made them printed.

    Attributes:
        folder: The folder.
        train: What ``train`` printed, for a folder of images and with many settings.
        synthetic: What ``train`` printed for embedded data.
        knn: What ``knn`` printed, likewise.
        evaluate: What ``evaluate`` printed.
    """

    folder: Path
    train: str = ""
    synthetic: str = ""
    knn: str = ""
    evaluate: str = ""


def write_images(root: Path) -> None:
    """Images of two sizes, of two classes that differ in colour."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("gan", "diffusion")):
        (root / "train" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 120, (16, 16 + index % 2, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / "train" / name / f"{index}.png")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    folder = tmp_path_factory.mktemp("commands")
    write_images(folder / ROOT)
    (folder / "my_plugin.py").write_text("")
    show = "-c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    for name, python in (("bin", "-m deepfake_cls"), ("split", show)):
        (folder / name).mkdir()
        (folder / name / "deepfake-cls").write_text(f'#!/bin/sh\nexec "{sys.executable}" {python} "$@"\n')
        (folder / name / "deepfake-cls").chmod(0o755)
    data = ["data=folder", f'data.root="{ROOT}"'.replace(' "data"', r" \"data\""), "data.size=[16,16]"]
    data += ["data.resize=true", "data.on_error=skip", "data.fold=1", "data.folds=3", 'data.cache="a cache"']
    settings = ["channels=RGB", "augment.cutmix=null", "augment.rotation.degrees=5", "recipe.warmup=0.2", "epochs=1"]
    result = Printed(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)

        def run(entry: Any, name: str, schema: type[Any], *arguments: str) -> str:
            with pytest.MonkeyPatch.context() as inner:
                text: list[str] = []
                inner.setattr("deepfake_cls.summary.print", lambda *lines, **_: text.extend(lines), raising=False)
                entry.run(configure(name, schema, *arguments), False)
                return "\n".join(text)

        plugins = ["plugins=[my_plugin]"]
        result.synthetic = run(train, "train", TrainConfig, *SMALL_NET, *SMALL_DATA, "epochs=1", "run_dir=embedded")
        result.knn = run(knn, "knn", KnnConfig, *SMALL_DATA, "trainer.progress=false", *plugins)
        checkpoint = "checkpoint=embedded/checkpoints/last.ckpt"
        result.evaluate = run(evaluate, "evaluate", EvaluateConfig, *SMALL_DATA, checkpoint, "trainer.threads=1")
        result.train = run(train, "train", TrainConfig, *SMALL_NET, *data, *settings, *plugins)
    return result


def line(text: str, purpose: str) -> str:
    (found,) = re.findall(f"^{purpose}: (.*)$", text, re.MULTILINE)
    return str(found)


def in_shell(text: str, folder: Path, programs: str = "bin") -> str:
    """Run a printed command in a shell; it has to succeed. Return what it prints."""
    env = {**os.environ, "PATH": f"{folder / programs}:{os.environ['PATH']}"}
    done = subprocess.run(text, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def composed(text: str, folder: Path) -> Any:
    """Let a shell split a printed command, and compose and check its configuration; a sweep's first job."""
    words: list[str] = json.loads(in_shell(text, folder, "split"))
    positional, arguments = split_positional(words[1:])
    assert positional == (["PHOTOS"] if words[0] == "predict" and "PHOTOS" in text else [])
    overrides = []
    for argument in (argument for argument in arguments if argument not in ("-m", "seed=0,1,2")):
        parsed = OverridesParser.create().parse_override(argument)
        first = next(parsed.sweep_string_iterator()) if parsed.is_sweep_override() else None
        overrides.append(argument if first is None else f"{parsed.key_or_group}={first}")
    return configure(words[0], SCHEMAS[words[0]], *overrides)


def test_the_report_after_a_training_finds_its_run(printed: Printed) -> None:
    output = in_shell(line(printed.train, "next"), printed.folder)
    assert "runs match" not in output
    page = (printed.folder / "reports" / "index.html").read_text()
    commands = re.findall(r"<h2>Next commands</h2>\s*<pre>(.*?)</pre>", page, re.DOTALL)[0]
    label, sweep = html.unescape(commands).splitlines()
    assert composed(label, printed.folder).checkpoint.endswith("/checkpoints/last.ckpt")
    assert composed(sweep, printed.folder).data.root == ROOT

    # A table without runs names the command that makes them.
    tables = (printed.folder / "reports" / "tables.md").read_text()
    (start,) = {*re.findall(r"To run them: (.*)$", tables, re.MULTILINE)}
    config = composed(start, printed.folder)
    assert (config.data.root, config.data.size, config.data.cache) == (ROOT, [16, 16], "a cache")
    assert config.plugins == ["my_plugin"]


def test_commands_of_experiments_keep_the_settings(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(printed.folder)  # data.root is relative to it
    arguments = overrides_of("train", asdict(composed(line(printed.train, "next"), printed.folder)))
    study = declared(arguments)
    starts = [experiment.command(arguments) for experiment in study.experiments.values()]
    starts += re.findall("To run them: (.*)$", study.no_match(study.main)[0])
    assert len(starts) == len(study.experiments) + 1
    for start in starts:
        config = composed(start, printed.folder)
        assert (config.data.root, config.data.cache, config.plugins) == (ROOT, "a cache", ["my_plugin"])


def test_commands_after_a_training_keep_its_settings(printed: Printed) -> None:
    report = composed(line(printed.train, "next"), printed.folder)
    assert report.data.root == ROOT
    assert (report.data.size, report.data.fold, report.data.cache) == ([16, 16], 1, "a cache")
    assert (report.width, report.epochs, report.channels, report.augment["cutmix"]) == (8, 1, "RGB", None)
    label = composed(line(printed.train, "label images"), printed.folder)
    assert (label.plugins, label.data.cache) == (["my_plugin"], "a cache")
    assert (printed.folder / label.checkpoint).is_file()


def test_the_command_that_labels_images_takes_a_folder(printed: Printed) -> None:
    start = line(printed.train, "label images").replace("PHOTOS", shlex.quote(f"{ROOT}/train/gan"))
    assert "0.png" in in_shell(start, printed.folder)


def test_the_next_command_for_data_with_a_test_split_labels_it(printed: Printed) -> None:
    in_shell(f"{line(printed.synthetic, 'next')} output=labels.csv", printed.folder)
    assert len((printed.folder / "labels.csv").read_text().splitlines()) == 11


def test_the_report_after_knn_finds_its_run(printed: Printed) -> None:
    start = line(printed.knn, "next")
    assert "plugins=[my_plugin]" in start
    output = in_shell(f"{start} output=knn table=1", printed.folder)
    assert "runs match" not in output
    assert "| 5 |" in output


def test_a_file_name_that_is_no_utf_8_is_printed_as_it_is(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    (tmp_path / "images").rename(os.fsdecode(bytes(tmp_path / "images") + b"\xff"))
    arguments = [b"data=folder", b'data.root="images\xff"', b"data.size=[16,16]", b"data.resize=true"]
    start: list[str | bytes] = [sys.executable, "-m", "deepfake_cls.knn", *arguments, "trainer.progress=false", "k=[3]"]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(start, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"next: deepfake-cls report data=folder 'data.root=\"images\xff\"' " in done.stdout


def test_evaluate_prints_how_to_label_images(printed: Printed) -> None:
    config = composed(line(printed.evaluate, "label images"), printed.folder)
    assert (config.checkpoint, config.trainer.threads) == ("embedded/checkpoints/last.ckpt", None)  # not the run's 1


@pytest.mark.slow
def test_the_command_of_an_experiment_fills_its_table(printed: Printed) -> None:
    sizes = ["data.train_size=45", "data.validation_size=20", "data.image_size=16"]
    start = declared(sizes).experiments["table1_knn"].command([*sizes, "trainer.progress=false"])
    in_shell(start, printed.folder)
    table = in_shell(command("report", [*sizes, "table=1", "output=table1"]), printed.folder)
    assert "runs match" not in table


@pytest.mark.parametrize(
    ("entry", "overrides"),
    [
        ("train", ["scale=tiny"]),
        ("train", ["scale=reference", "epochs=3"]),
        ("train", ["scale=small", "lr=4e-3", "width=8"]),
        ("train", ["model=timm", "model.args.architecture=resnet18", "logger=csv"]),
        ("train", ["model.name=own", 'model.args={a: [1, null], b: "x, y"}', "logger.args.flush_logs_every_n_steps=3"]),
        ("train", ["augment.flip=null", "augment.own.strength=0.5", "augment.cutmix.p=1", "plugins=[a,b.c]"]),
        ("train", ["arm=best", "augment.cutmix.p=1"]),
        ("train", ["augment=robust", "augment.blur=null", "augment.own.strength=2"]),
        ("train", ["arm=no_skips", "trainer.curve_images=100", "trainer.precision=32-true", "tta=none"]),
        ("train", ["data=unibuc", "data.root=x", "data.fold=2", "data.val_fraction=0.3", "init=a.ckpt"]),
        ("train", ["data=genimage", "data.root=x", "data.size=[8,8]"]),
        ("train", ["data=genimage", "data.root=x", "data.real=null", "~data.class_map.nature"]),
        ("train", ["data=genimage", "data.root=x", "data.class_map={adm: ADM, a b: c}", "data.class_map.glide=GLIDE"]),
        ("train", ["data=pattern", "data.root=x", 'data.pattern="{split}/*"', "data.split_map={a\\,\\:\\=b: train}"]),
        ("train", ["data=table", "data.root=x", "data.table=t.csv", "data.columns={path: file, split: null}"]),
        ("knn", ["data=unibuc", "data.root=x", "data.class_map={0: real, 12: 7}", "data.exclude=[3]"]),
        ("knn", ["k=[1,3]", "features=spectrum", "data.alpha=mask", "data.workers=1"]),
        ("predict", ["probabilities=true", 'output="a b.csv"', "tta=flip"]),
        ("report", ["runs=elsewhere", "require=3", "dropout=0.5"]),
    ],
)
def test_the_overrides_of_a_configuration_give_the_same_configuration(entry: str, overrides: list[str]) -> None:
    required = ["checkpoint=x.ckpt"] if entry == "predict" else []
    config = configure(entry, SCHEMAS[entry], *overrides, *required)
    printed = overrides_of(entry, asdict(config), omit=[])
    again = configure(entry, SCHEMAS[entry], *printed)
    assert again == config
    if hasattr(config, "augment"):
        assert [*again.augment] == [*config.augment]  # the order matters
    assert from_hydra(to_hydra(printed)) == printed


def test_a_preset_is_printed_by_its_name() -> None:
    renamed = "data.class_map={nature:real,adm:ADM}"
    for overrides in (["data=prompts"], ["data=genimage", "data.fold=1"], ["data=genimage", renamed]):
        overrides.insert(1, "data.root=x")
        assert overrides_of("train", asdict(configure("train", TrainConfig, *overrides))) == overrides
    assert declared(["data=genimage", "data.root=x"]).settings == "scale=small data=genimage data.root=x"


def test_a_preset_runs_and_is_in_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("adm/train/ai", "adm/train/nature", "adm/val/ai", "adm/val/nature", "sd/train/ai", "sd/val/ai"):
        (tmp_path / "gen" / folder).mkdir(parents=True)
        for index in range(3):
            colour = (200 * folder.startswith("adm"), 200 * folder.endswith("ai"), index)
            Image.new("RGB", (16, 16), colour).save(tmp_path / "gen" / folder / f"{index}.png")
    overrides = ["data=genimage", "data.root=gen", "k=[1]", "trainer.progress=false"]
    knn.run(configure("knn", KnnConfig, *overrides), False)
    assert "next: deepfake-cls report data=genimage data.root=gen " in capsys.readouterr().out
    (file,) = Path("runs/knn").glob("*/result.json")
    record = json.loads(file.read_text())
    assert (record["data"]["classes"], record["data"]["sizes"]) == (
        ["adm", "real", "sd"],
        {"train": 9, "validation": 9},
    )
    assert record["metrics"]["val_acc"] == 1


def test_defaults_need_no_overrides() -> None:
    assert overrides_of("train", asdict(configure("train", TrainConfig, "seed=3", "run_dir=x"))) == []
    tiny = asdict(configure("train", TrainConfig, "scale=tiny"))
    assert overrides_of("train", tiny) == overrides_of("train", tiny, omit=["lr"]) == ["scale=tiny"]
