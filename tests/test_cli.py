from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from deepfake_cls import config as schemas
from deepfake_cls.__main__ import COMMANDS
from deepfake_cls.config import SCHEMAS, CommandConfig, KnnConfig, ModelConfig, TrainConfig, conf_dir
from deepfake_cls.data import source
from deepfake_cls.errors import InputError
from deepfake_cls.help import descriptions
from deepfake_cls.overrides import refuse_other_experiments, refuse_unknown_options
from deepfake_cls.validation import keys_of
from tests.conftest import ROOT, call, configure

GROUPS = (
    schemas.SyntheticConfig,
    schemas.UnibucConfig,
    schemas.FolderConfig,
    schemas.ModelConfig,
    schemas.RecipeConfig,
    schemas.TrainerConfig,
    schemas.LoggerConfig,
)
# Other tests register layouts of their own.
SHIPPED_LAYOUTS = [name for name in source if source[name].__module__.startswith("deepfake_cls.")]


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


def test_every_root_file_has_an_entry_point() -> None:
    roots = {file.stem for file in conf_dir().glob("*.yaml")} - {"hydra_quiet"}
    assert roots == set(SCHEMAS)
    assert all(importlib.util.find_spec(f"deepfake_cls.{name}") for name in roots)
    assert set(COMMANDS) == roots


@pytest.mark.parametrize(("scale", "recipe"), [*itertools.product(options("scale"), options("recipe"))])
def test_every_shipped_configuration_composes(scale: str, recipe: str) -> None:
    configure("train", TrainConfig, f"scale={scale}", f"recipe={recipe}")


@pytest.mark.parametrize("data", [*SHIPPED_LAYOUTS, *options("data")])
def test_every_layout_and_preset_composes(data: str) -> None:
    required = [] if data == "synthetic" else ["data.root=somewhere"]
    required += [f"data.{data}=x"] if data in ("pattern", "table") else []
    for name in ("train", "knn", "evaluate", "predict"):
        checkpoint = ["checkpoint=x"] if name in ("evaluate", "predict") else []
        config = configure(name, SCHEMAS[name], f"data={data}", *required, *checkpoint)
        assert config.data.name == (data if data in SHIPPED_LAYOUTS else "pattern")


def test_the_reference_scale_is_the_training_of_the_paper() -> None:
    config = configure("train", TrainConfig, "scale=reference")
    assert (config.width, config.epochs, config.lr, config.batch_size, config.dropout) == (64, 100, 3e-4, 64, 0.3)
    assert config.channels == "RGBA"
    recipe = config.recipe
    assert config.augment == {
        "flip": {"p": 0.5},
        "rotation": {"degrees": 10.0, "fill_alpha": "mask"},
        "cutmix": {"p": 0.5, "alpha": 1.0, "until": 1.0},
    }
    assert list(config.augment) == ["flip", "rotation", "cutmix"]
    assert config.model == ModelConfig("resnet", {"skips": True})
    assert (recipe.label_smoothing, recipe.weight_decay, recipe.warmup) == (0.1, 1e-4, 0.1)
    assert (recipe.decay_all, recipe.ema, recipe.batch_norm) == (True, 0.0, "running")


def test_the_command_line_wins_over_the_scale() -> None:
    config = configure("train", TrainConfig, "scale=tiny", "lr=0.5", "epochs=7")
    assert (config.lr, config.epochs, config.width) == (0.5, 7, 8)


def test_keys_of_other_entry_points_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="k: unknown key of this command; it is a key of knn"):
        configure("train", TrainConfig, "+k=5")
    with pytest.raises(InputError, match="lr"):
        configure("knn", KnnConfig, "+lr=1")
    with pytest.raises(InputError, match="strength: unknown key of this data layout"):
        configure("train", TrainConfig, "data=folder", "data.root=x", "+data.strength=1")


def test_values_of_another_type_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="lr=fast: expected a number above 0"):
        configure("train", TrainConfig, "lr=fast")
    with pytest.raises(InputError, match=r"data.root: missing; give it .*data.root=VALUE"):
        configure("train", TrainConfig, "data=unibuc")


def test_an_unknown_key_gives_one_message_and_status_1() -> None:
    done = call("deepfake_cls.train", "k=5", check=False)
    assert done.returncode == 1
    assert "k" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_error_gives_one_line_and_status_1() -> None:
    done = call("deepfake_cls.train", "data=unibuc", "data.root=nowhere", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), *GROUPS])
def test_every_key_has_a_description(schema: type[Any]) -> None:
    assert {entry.name for entry in fields(schema)} == set(descriptions(schema))


def rows_of_help(output: str) -> dict[str, str]:
    """The descriptions by key; a description follows its key in the same or the next line."""
    lines = output.partition("keys and their values:\n")[2]
    return dict(re.findall(r"^  ([\w.]+)=\S*(?: +|\n {36}|$)(.*)$", lines, re.MULTILINE))


@pytest.mark.parametrize("command", [*sorted(SCHEMAS), "train data=folder model=timm"])
def test_help_describes_each_key_and_does_not_import_torch(command: str) -> None:
    name, *arguments = command.split()
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help', *{arguments}]\n"
        f"try: runpy.run_module('deepfake_cls.{name}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rows = rows_of_help(output)
    if name == "report":  # only its own keys
        assert [*rows] == ["runs", "output", "table", "require", "plugins"]
        assert "\nAll keys of train select the runs of the tables: deepfake-cls train --help\n" in output
    else:
        groups = {"data", "trainer", "augment", "model", "model.args", "recipe", "logger"}
        assert {*keys_of(SCHEMAS[name])} - groups <= {*rows}
        assert "plugins" in rows
        assert {"data.cache", "trainer.device"} <= {*rows} or not issubclass(SCHEMAS[name], CommandConfig)
    assert [key for key, text in rows.items() if not text] == []
    assert output.endswith("False\n")


def test_a_number_for_a_list_is_refused_with_an_example() -> None:
    with pytest.raises(InputError, match=r"k=5: expected a list; write 'k=\[5\]'"):
        configure("knn", KnnConfig, "k=5")


def test_a_tilde_in_a_path_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configure("train", TrainConfig, 'run_dir="~/here"').run_dir == str(tmp_path / "here")
    predict = configure("predict", schemas.PredictConfig, "checkpoint=x", 'output="~/labels.csv"')
    assert predict.output == str(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "arguments", [["experiment=table4_lr,table5_dropout"], ["experiment=table4_lr", "+experiment=table5_dropout"]]
)
def test_one_experiment_at_a_time(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="experiment=table4_lr,table5_dropout: one at a time"):
        refuse_other_experiments("train", ["-m", *arguments])


@pytest.mark.parametrize(
    ("entry", "name", "owner"),
    [("knn", "table4_lr", "train"), ("train", "table1_knn", "knn"), ("report", "table5_dropout", "train")],
)
def test_an_experiment_of_another_entry_point_is_refused_with_its_name(entry: str, name: str, owner: str) -> None:
    with pytest.raises(InputError, match=f"experiment={name}: belongs to deepfake-cls {owner}."):
        refuse_other_experiments(entry, ["scale=tiny", f"experiment={name}"])


@pytest.mark.parametrize("argument", ["lr=1", "experiment=null", "experiment=unknown", "experiment=table4_lr"])
def test_other_arguments_are_left_to_hydra(argument: str) -> None:
    refuse_other_experiments("train", [argument])
    refuse_other_experiments("train", [])


@pytest.mark.parametrize(
    ("entry", "name", "argument", "key"),
    [
        ("train", "table6_alpha", "channels=RGB", "channels"),
        ("train", "table6_alpha", "arm=rgb", "arm"),
        ("train", "table6_controls", "++data.strength=1", "data.strength"),
        ("train", "table10_components", "augment.cutmix=null", "augment.cutmix"),
        ("train", "table4_lr", "lr=1e-3,2e-3", "lr"),
        ("knn", "table1_knn", "shift=1", "shift"),
    ],
)
def test_a_key_that_an_experiment_varies_is_refused(entry: str, name: str, argument: str, key: str) -> None:
    with pytest.raises(InputError) as error:
        refuse_other_experiments(entry, [f"experiment={name}", "seed=0,1", argument])
    assert str(error.value) == f"{argument}: experiment={name} varies {key}; omit this key."
    refuse_other_experiments(entry, [f"experiment={name}", "seed=0,1", "data.root=x", "epochs=2"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data=imagenet", r"data=imagenet: unknown; expected one of .*genimage, .*plugins="),
        ("model=vgg", r"model=vgg: unknown; expected one of best, resnet, texturenet, timm\. .*model.name=vgg"),
        ("scale=huge", r"scale=huge: unknown; expected one of reference, small, tiny\.$"),
    ],
)
def test_an_unknown_option_is_refused_with_the_available_ones(argument: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_unknown_options([argument])


def test_every_experiment_has_exactly_one_entry_point() -> None:
    for file in (ROOT / "conf" / "experiment").glob("*.yaml"):
        entries = []
        for entry in ("train", "knn", "statistics"):
            try:
                refuse_other_experiments(entry, [f"experiment={file.stem}"])
                entries.append(entry)
            except InputError:
                pass
        assert len(entries) == 1


def test_a_refused_experiment_gives_one_line_and_status_1() -> None:
    done = call("deepfake_cls.knn", "experiment=table4_lr", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: experiment=table4_lr: belongs to deepfake-cls train.\n"


def test_a_number_for_an_image_size_is_refused_with_an_example() -> None:
    with pytest.raises(InputError, match=r"data.size=64: expected a list; write 'data.size=\[64,64\]'"):
        configure("knn", KnnConfig, "data=folder", "data.root=x", "data.size=64")
