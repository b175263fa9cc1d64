from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from deepfake_cls import config as schemas
from deepfake_cls.__main__ import COMMANDS
from deepfake_cls.config import KnnConfig, ModelConfig, TrainConfig, conf_dir
from deepfake_cls.errors import InputError
from deepfake_cls.overrides import refuse_other_experiments
from tests.conftest import ROOT, call, configure

ENTRIES = {
    "train": schemas.TrainConfig,
    "knn": schemas.KnnConfig,
    "evaluate": schemas.EvaluateConfig,
    "predict": schemas.PredictConfig,
    "report": schemas.ReportConfig,
}


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / "conf" / group).glob("*.yaml"))


def test_every_root_file_has_an_entry_point() -> None:
    roots = {file.stem for file in conf_dir().glob("*.yaml")} - {"hydra_quiet"}
    assert roots == set(ENTRIES)
    assert all(importlib.util.find_spec(f"deepfake_cls.{name}") for name in roots)
    assert set(COMMANDS) == roots


@pytest.mark.parametrize(
    ("scale", "recipe", "data"), [*itertools.product(options("scale"), options("recipe"), options("data"))]
)
def test_every_shipped_configuration_composes(scale: str, recipe: str, data: str) -> None:
    root = [] if data == "synthetic" else ["data.root=somewhere"]
    train = configure("train", TrainConfig, f"scale={scale}", f"recipe={recipe}", f"data={data}", *root)
    assert train.data.name == data
    for name in ("knn", "evaluate", "predict"):
        more = [] if name == "knn" else ["checkpoint=x"]
        configure(name, ENTRIES[name], f"data={data}", *root, *more)


def test_the_reference_scale_is_the_reports_training() -> None:
    found = configure("train", TrainConfig, "scale=reference")
    assert (found.width, found.epochs, found.lr, found.batch_size, found.dropout) == (64, 100, 3e-4, 64, 0.3)
    assert found.channels == "RGBA"
    recipe = found.recipe
    assert found.augment == {
        "flip": {"p": 0.5},
        "rotation": {"degrees": 10.0, "fill_alpha": "mask"},
        "cutmix": {"p": 0.5, "alpha": 1.0},
    }
    assert list(found.augment) == ["flip", "rotation", "cutmix"]
    assert found.model == ModelConfig("resnet", {"skips": True})
    assert (recipe.label_smoothing, recipe.weight_decay, recipe.warmup) == (0.1, 1e-4, 0.1)


def test_the_command_line_wins_over_the_scale() -> None:
    found = configure("train", TrainConfig, "scale=tiny", "lr=0.5", "epochs=7")
    assert (found.lr, found.epochs, found.width) == (0.5, 7, 8)


def test_keys_of_other_entry_points_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="k: .*known keys: .*lr, epochs"):
        configure("train", TrainConfig, "+k=5")
    with pytest.raises(InputError, match="lr"):
        configure("knn", KnnConfig, "+lr=1")
    with pytest.raises(InputError, match="strength"):
        configure("train", TrainConfig, "data=folder", "data.root=x", "+data.strength=1")


def test_values_of_another_type_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"lr: .*fast.*"):
        configure("train", TrainConfig, "lr=fast")
    with pytest.raises(InputError, match=r"data.root: missing; give it .*data.root=VALUE"):
        configure("train", TrainConfig, "data=unibuc")


def test_an_unknown_key_ends_with_one_message_and_status_1() -> None:
    done = call("deepfake_cls.train", "k=5", check=False)
    assert done.returncode == 1
    assert "k" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_error_is_one_line_and_status_1() -> None:
    done = call("deepfake_cls.train", "data=unibuc", "data.root=nowhere", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_help_names_the_keys_and_imports_no_framework(name: str) -> None:
    done = call("deepfake_cls." + name, "--help")
    assert "data" in done.stdout or name == "report"
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('deepfake_cls.{name}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('TORCH' if 'torch' in sys.modules else 'LIGHT')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("LIGHT")


def test_a_list_without_brackets_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(InputError, match=r"k=5: expected a list; write 'k=\[5\]'"):
        configure("knn", KnnConfig, "k=5")


def test_paths_of_the_home_folder_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configure("train", TrainConfig, 'run_dir="~/here"').run_dir == str(tmp_path / "here")
    predict = configure("predict", schemas.PredictConfig, "checkpoint=x", 'output="~/labels.csv"')
    assert predict.output == str(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    "words", [["experiment=table4_lr,table5_dropout"], ["experiment=table4_lr", "+experiment=table5_dropout"]]
)
def test_one_experiment_at_a_time(words: list[str]) -> None:
    with pytest.raises(InputError, match="experiment=table4_lr,table5_dropout: one at a time"):
        refuse_other_experiments("train", ["-m", *words])


@pytest.mark.parametrize(
    ("entry", "name", "owner"),
    [("knn", "table4_lr", "train"), ("train", "table1_knn", "knn"), ("report", "table5_dropout", "train")],
)
def test_an_experiment_of_another_entry_point_says_which(entry: str, name: str, owner: str) -> None:
    with pytest.raises(InputError, match=f"experiment={name}: belongs to python -m deepfake_cls.{owner}."):
        refuse_other_experiments(entry, ["scale=tiny", f"experiment={name}"])


@pytest.mark.parametrize("words", [[], ["lr=1"], ["experiment=null"], ["experiment=unknown"], ["experiment=table4_lr"]])
def test_other_experiments_are_left_to_hydra(words: list[str]) -> None:
    refuse_other_experiments("train", words)


def test_every_experiment_has_an_entry_point_that_takes_it() -> None:
    for file in (ROOT / "conf" / "experiment").glob("*.yaml"):
        takers = []
        for entry in ("train", "knn"):
            try:
                refuse_other_experiments(entry, [f"experiment={file.stem}"])
                takers.append(entry)
            except InputError:
                pass
        assert len(takers) == 1


def test_a_foreign_experiment_is_one_line_and_status_1() -> None:
    done = call("deepfake_cls.knn", "experiment=table4_lr", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: experiment=table4_lr: belongs to python -m deepfake_cls.train.\n"


def test_a_size_without_brackets_is_told_its_form() -> None:
    with pytest.raises(InputError, match=r"data.size=64: expected height and width, .*\[100,100\]"):
        configure("knn", KnnConfig, "data=folder", "data.root=x", "data.size=64")
