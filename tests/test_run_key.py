"""Which changes repeat a run, through the entry points."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from deepfake_cls import config as schemas
from deepfake_cls import knn, run_key, train
from deepfake_cls.config import KnnConfig, RecipeConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.records import read_record
from tests.conftest import ROOT, SMALL_DATA, SMALL_NET, call, configure

OVERRIDES = [*SMALL_DATA, *SMALL_NET, "data.image_size=16", "epochs=1"]


def fit(*overrides: str, schema: type[TrainConfig] = TrainConfig) -> None:
    train.run(configure("train", schema, *OVERRIDES, *overrides), False)


def results(kind: str = "cnn") -> list[Path]:
    return sorted(Path("runs", kind).glob("*/result.json"))


def test_a_comment_in_the_package_repeats_nothing() -> None:
    fit()
    shutil.copytree(ROOT / "deepfake_cls", "copy/deepfake_cls", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", "copy/conf")
    copy = {"PYTHONPATH": str(Path("copy").resolve()), "PYTHONSAFEPATH": "1"}
    for module in ("models/resnet.py", "training/module.py", "run_key.py"):
        with Path("copy/deepfake_cls", module).open("a") as file:
            file.write("\nassert 'copy' in __file__  # a comment\n")
    done = call("deepfake_cls.train", *OVERRIDES, env=copy)
    assert "already done; force=true repeats it." in done.stdout
    assert len(results()) == 1


@dataclass
class LaterRecipe(RecipeConfig):
    """A recipe of a later version, with a key that the present one does not have."""

    later: float = 0.0


@dataclass
class LaterConfig(TrainConfig):
    """The keys of a later version."""

    mixup: float = 0.0
    recipe: LaterRecipe = field(default_factory=LaterRecipe)


def test_a_later_key_at_its_default_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit()
    first = read_record(results()[0].parent)
    monkeypatch.setitem(schemas.SCHEMAS, "train", LaterConfig)
    fit(schema=LaterConfig)
    assert capsys.readouterr().out.count("already done") == 1
    assert run_key.run_key_of(first) == first.identity
    for override in ("+mixup=0.2", "+recipe.later=0.9"):
        fit(override, schema=LaterConfig)
    assert "already done" not in capsys.readouterr().out
    assert len({read_record(file.parent).identity for file in results()}) == 3


def test_a_seed_without_effect_repeats_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL_DATA, "data.image_size=16", "trainer.progress=false", "k=[1,3]"]
    for seed in (0, 1):
        knn.run(configure("knn", KnnConfig, *arguments, f"seed={seed}"), False)
    assert "already done" in capsys.readouterr().out
    assert len(results("knn")) == 1


def test_a_seed_that_chooses_the_fold_repeats_the_run(unibuc_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["data=unibuc", f"data.root={unibuc_like}", "data.folds=3", "data.fold=${seed}"]
    for seed in (0, 1):
        knn.run(configure("knn", KnnConfig, *data, f"seed={seed}", "k=[1]", "trainer.progress=false"), False)
    assert "already done" not in capsys.readouterr().out
    assert len(results("knn")) == 2


def test_a_copy_of_the_result_files_is_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    fit("run_dir=complete")
    Path("runs/copied").mkdir(parents=True)
    for name in ("result.json", "predictions.npz"):
        shutil.copy(Path("complete") / name, Path("runs/copied") / name)
    capsys.readouterr()
    fit("run_dir=runs/copied")
    assert "runs/copied: already done; force=true repeats it." in capsys.readouterr().out
    assert sorted(file.name for file in Path("runs/copied").iterdir()) == ["predictions.npz", "result.json"]
    with pytest.raises(InputError, match="run_dir=runs/copied: contains another run"):
        fit("run_dir=runs/copied", "seed=1")

    done = call("deepfake_cls.report", *OVERRIDES, "table=9")
    assert "### Table 9: Test-time augmentation" in done.stdout
    assert "(n = 1)" in done.stdout
    with Path("reports/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [read_record(Path("complete")).identity[:12]]


def to_schema_1(folder: Path) -> None:
    """Rewrite a run as it was written before networks and augmentations had names."""
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    config, identity = content["config"], "5" * 64
    augment, model = config.pop("augment"), config.pop("model")
    for key in ("logger", "plugins", "init"):
        del config[key]
    flip, rotation, cutmix = (augment[name] or {} for name in ("flip", "rotation", "cutmix"))
    config["recipe"] |= {
        "flip": flip.get("p", 0.0),
        "rotation": rotation.get("degrees", 0.0),
        "alpha_fill": rotation.get("fill_alpha", "mask"),
        "cutmix": cutmix.get("p", 0.0),
        "cutmix_alpha": cutmix.get("alpha", 1.0),
        "skips": model["args"]["skips"],
    }
    content |= {"schema": 1, "identity": identity}
    for key in ("digests", "result_version"):
        del content[key]
    (folder / "result.json").write_text(json.dumps(content))
    for file in (folder / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(file, weights_only=True)
        settings = checkpoint["hyper_parameters"]
        del settings["model"], settings["augment"]
        steps = settings["steps"] * settings.pop("epochs")
        settings |= {"recipe": config["recipe"], "steps": steps, "identity": identity}
        torch.save(checkpoint, file)
    (folder / "run.json").write_text(json.dumps({"identity": identity}))
    folder.rename(folder.with_name(identity[:12]))


@pytest.mark.parametrize("arm", ["paper", "no_cutmix", "no_rotation", "no_skips", "rgba_constant"])
def test_a_run_of_schema_1_is_read_and_not_repeated(arm: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit(f"arm={arm}")
    before = read_record(results()[0].parent)
    to_schema_1(results()[0].parent)
    after = read_record(Path("runs/cnn/555555555555"))
    assert after.schema == 1
    assert (after.metrics, after.confusion, after.digests) == (before.metrics, before.confusion, {})
    assert run_key.run_key_of(after) == before.identity
    capsys.readouterr()
    fit(f"arm={arm}")
    assert "runs/cnn/555555555555: already done; force=true repeats it." in capsys.readouterr().out
    fit(f"arm={arm}", "run_dir=runs/cnn/555555555555")
    assert "already done" in capsys.readouterr().out
    assert results() == [Path("runs/cnn/555555555555/result.json")]


def test_flip_tta_is_added_to_a_run_of_schema_1(capsys: pytest.CaptureFixture[str]) -> None:
    fit("run_dir=both", "arm=no_skips")
    fit("tta=none", "arm=no_skips")
    folder = results()[0].parent
    to_schema_1(folder)
    before = read_record(folder.with_name("555555555555"))
    for _ in range(2):
        fit("arm=no_skips")
    assert capsys.readouterr().out.count("adding tta=flip from its checkpoint") == 1
    after = read_record(folder.with_name("555555555555"))
    assert after.metrics == read_record(Path("both")).metrics
    assert (after.schema, after.identity, after.config) == (1, before.identity, before.config)


def test_another_configuration_repeats_a_run_of_schema_1(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    to_schema_1(results()[0].parent)
    for override in ("augment.cutmix.alpha=0.5", "model.args.skips=false", "augment.flip=null", "lr=0.1"):
        fit(override)
    assert "already done" not in capsys.readouterr().out
    assert len(results()) == 5


def test_a_preset_has_the_key_of_the_same_keys_given_by_hand() -> None:
    by_hand = ["data=pattern", 'data.pattern="{class}/{split}/ai/*|*/{split}/{class}/*"', "data.class_map.nature=real"]
    keys = []
    for overrides in (["data=genimage"], [*by_hand, "data.real=real"], by_hand):
        config = configure("train", TrainConfig, *overrides, "data.root=x")
        keys.append(run_key.result_key("cnn", asdict(config), "", 1))
    assert keys[0] == keys[1] != keys[2]


def test_the_place_of_a_table_is_no_part_of_the_key() -> None:
    keys = [
        run_key.hashed_config("cnn", asdict(configure("train", TrainConfig, "data=table", "data.root=x", *overrides)))
        for overrides in (
            ["data.table=a.csv"],
            ["data.table=b.csv", "data.group_table=c.csv"],
            ["data.table=a.csv", "data.columns.label=x"],
        )
    ]
    assert keys[0] == keys[1] != keys[2]
    assert keys[2]["data"] == {"name": "table", "columns": {"label": "x"}}


def test_the_key_of_renamed_classes_is_that_of_the_record() -> None:
    overrides = ["data=unibuc", "data.root=x", "data.class_map={2: a, 10: 7, x: c}"]
    config = asdict(configure("train", TrainConfig, *overrides))
    assert config["data"]["class_map"] == {"2": "a", "10": 7, "x": "c"}
    keys = [run_key.result_key("cnn", each, "", 1) for each in (config, json.loads(json.dumps(config)))]
    assert keys[0] == keys[1]
