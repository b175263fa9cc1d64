"""Wrong arguments: one line names each and says how to mend it, and the exit status is 1."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from deepfake_cls import cli
from deepfake_cls.config import SCHEMAS, TrainConfig
from deepfake_cls.overrides import split_positional
from tests.conftest import call, configure

FOLDER = "data=folder data.root=x"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A command that is called in this process and fails; returns what it prints on standard error."""

    def no_run(config: object, sweep: bool) -> None:
        pytest.fail("the command was not refused")

    def refuse(command: str) -> str:
        name, *arguments = command.split()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main(name, SCHEMAS[name], no_run)
        output = capsys.readouterr()
        assert (output.out, os.listdir()) == ("", [])  # noqa: PTH208
        assert isinstance(stop.value.code, str) or stop.value.code == 1
        return output.err.strip() or str(stop.value.code)

    return refuse


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train epoch=3", "epoch: unknown key; did you mean epochs?"),
        ("train +epoch=3", "epoch: unknown key; did you mean epochs?"),
        ("train warmup=0.2", "warmup: unknown key; did you mean recipe.warmup?"),
        ("train recipe.warmpu=0.1", "recipe.warmpu: unknown key; did you mean recipe.warmup?"),
        ("train trainer.devise=cpu", "trainer.devise: unknown key; did you mean trainer.device?"),
        ("train trainr.device=cpu", "trainr.device: unknown key; did you mean trainer.device?"),
        ("train modle=timm", "modle: unknown key; did you mean model?"),
        ("train ~epoch", "epoch: unknown key; did you mean epochs?"),
        ("train data.sise=3", "data.sise: unknown key; did you mean data.size?"),
        (
            f"train {FOLDER} data.strength=1",
            "data.strength: unknown key of this data layout; it is a key of data=synthetic.",
        ),
        ("train data=genimage data.root=x data.pattren=y", "data.pattren: unknown key; did you mean data.pattern?"),
        (
            "train data=genimage data.root=x data.table=y",
            "data.table: unknown key of this data layout; it is a key of data=table.",
        ),
        (
            "train data=pattern data.root=x",
            "data.pattern: missing; give it on the command line, as in data.pattern=VALUE.",
        ),
        ("knn model.name=x", "model.name: unknown key of this command; it is a key of train and report."),
        ("train k=[5]", "k: unknown key of this command; it is a key of knn."),
        ("train lr=1e-4,1e-3", "lr=1e-4,1e-3: several values need -m, which runs a job for each."),
        (
            "train data=folder data.root=a,b",
            "data.root=a,b: several values need -m, which runs a job for each; write 'data.root=\"a,b\"' for text.",
        ),
        ("knn k=3,5", "k=3,5: expected a list; write 'k=[3,5]'."),
        (f"train {FOLDER} data.size=96,96", "data.size=96,96: expected a list; write 'data.size=[96,96]'."),
        (f"train {FOLDER} data.size=96", "data.size=96: expected a list; write 'data.size=[96,96]'."),
        (f'train {FOLDER} data.size="[96,96]"', "data.size=\"[96,96]\": expected a list; write 'data.size=[96,96]'."),
        (
            f"train {FOLDER} data.size=[96]",
            "data.size=[96]: expected height and width, integers from 1 up, as in [100,100].",
        ),
        ("train plugins=json", "plugins=json: expected a list; write 'plugins=[json]'."),
        ("train +lr=1", "+lr=1: lr has a value; write lr=1."),
        ("train lr=", 'lr="": expected a number above 0.'),
        ("train lr=abc", "lr=abc: expected a number above 0."),
        ("train lr=inf", "lr=inf: expected a number above 0."),
        ("train recipe.weight_decay=inf", "recipe.weight_decay=inf: expected 0 or more."),
        ("train lr=null", "lr=null: expected a number above 0."),
        ("train epochs=2.5", "epochs=2.5: expected an integer, 1 or more."),
        ("train force=maybe", "force=maybe: expected true or false."),
        ("train seed=x", "seed=x: expected an integer."),
        (
            "train trainer.threads=x",
            "trainer.threads=x: expected an integer, 1 or more, or null for torch's choice.",
        ),
        (
            "knn data=table data.root=x data.table=x data.columns=[a]",
            "data.columns=[a]: expected a mapping;"
            " write 'data.columns={path: NAME, label: NAME, split: NAME, group: NAME}'.",
        ),
        (
            "knn data=folder data.class_map=[a]",
            "data.class_map=[a]: expected a mapping; write 'data.class_map={NAME: VALUE}'.",
        ),
        ("runs data.cache=x", "data.cache: unknown key; this command takes no data set."),
        ("train model.args=3", "model.args=3: expected a mapping such as {a:1}."),
        ("knn k=[a]", "k=[a]: expected different numbers of 1 or more, such as 'k=[3,5,7]'."),
        ("train lr", "lr: expected KEY=VALUE; --help lists the keys."),
        ("train --lr", "unrecognized arguments: --lr; --help lists the keys."),
        ("train --cfg", "argument --cfg/-c: expected one argument; --help lists the keys."),
        ("train --cfg job -m", "-m, --cfg and --info: give one of them."),
        ("train scale=", "scale=: unknown; expected one of reference, small, tiny."),
        ("train augment=3", "augment=3: unknown; expected one of best, paper, robust."),
        ("train scale={a:b}", "scale={a:b}: expected one of reference, small, tiny."),
        (
            "train run_dir=[a",
            "run_dir=[a: Hydra cannot read the value; close brackets and quotes, or write 'run_dir=\"[a\"' for text.",
        ),
        ("train logger=null", "logger=null: expected one of csv, mlflow, tensorboard, wandb."),
        ("train launcher=null", "launcher=null: expected one of joblib, ray, slurm."),
        ("train scale=1.5", "scale=1.5: expected one of reference, small, tiny."),
        ("report logger=null", "logger=null: expected one of csv, mlflow, tensorboard, wandb."),
        ("evaluate trainer=null checkpoint=x", "trainer=null: expected one of default."),
        ("knn model=null", "model: unknown key of this command; it is a key of train and report."),
        ("train =3", "=3: expected KEY=VALUE; --help lists the keys."),
        ("train @=3", "@=3: expected KEY=VALUE; --help lists the keys."),
        ("train ~lr", "~lr: cannot be deleted; write lr=VALUE."),
        ("train ~trainer.device", "~trainer.device: cannot be deleted; write trainer.device=VALUE."),
        ("train ~data.seed", "~data.seed: cannot be deleted; write data.seed=VALUE."),
        ("compare foo=1", "foo: unknown key (known keys: plugins, runs, folders)"),
        ("train +data=folder", "+data=folder: data has a value; write data=folder."),
        ("train lr=${foo}", "lr: Interpolation key 'foo' not found; in ${KEY}, KEY is another key."),
    ],
)
def test_a_wrong_argument_is_answered_by_one_line(refused: Callable[[str], str], command: str, message: str) -> None:
    assert refused(command) == f"error: {message}"


def test_a_key_of_another_layout_is_answered_with_the_layouts_that_have_it(refused: Callable[[str], str]) -> None:
    # Other tests of this process may have registered layouts with the same keys.
    message = r"error: data.size: unknown key of this data layout; it is a key of data=folder.* and data=unibuc\."
    assert re.fullmatch(message, refused("train data.size=[96,96]"))


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_ray_launcher") is not None, reason="the launcher is installed")
def test_a_launcher_that_is_not_installed(refused: Callable[[str], str]) -> None:
    advice = "its package is not installed; install it with: pip install 'deepfake-cls[ray]'."
    assert refused("train launcher=ray") == f"error: launcher=ray: {advice}"


@pytest.mark.parametrize("flag", [[], ["-m"], ["--help"]])
def test_a_wrong_key_in_a_process(flag: list[str]) -> None:
    done = call("deepfake_cls", "train", "epoch=3", *flag, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: epoch: unknown key; did you mean epochs?\n"


def test_a_command_without_jobs_refuses_a_sweep_once() -> None:
    done = call("deepfake_cls.runs", "prune=failed,unfinished", "-m", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: runs lists all runs at once; call it without -m.\n"


def test_an_unexpected_error_has_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text(
        "from hydra._internal import hydra\ndef fail(*_, **__): raise RuntimeError('a bug')\nhydra.Hydra.run = fail\n"
    )
    done = call("deepfake_cls.train", "plugins=[broken]", check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("RuntimeError: a bug\n")


def test_flags_may_stand_anywhere() -> None:
    arguments = ["seed=0,1", "a.png", "--cfg", "job", "~/b", "~lr", "-m", "epochs=3", "--", "c=d"]
    positional, others = split_positional(arguments)
    assert positional == ["a.png", "~/b", "c=d"]
    assert others == ["--cfg", "job", "-m", "seed=0,1", "~lr", "epochs=3"]
    assert "lr: 0.5" in call("deepfake_cls.train", "lr=0.5", "--cfg", "job", "epochs=3").stdout


def test_an_empty_argument() -> None:
    done = call("deepfake_cls.train", "", check=False)
    assert done.stderr == "error: an empty argument: expected KEY=VALUE; --help lists the keys.\n"


@pytest.mark.parametrize(
    ("deletion", "expected"),
    [
        ("~model.args", "{} ['flip', 'rotation', 'cutmix']\n"),
        ("~augment.flip", "{'skips': True} ['rotation', 'cutmix']\n"),
    ],
)
def test_keys_without_a_schema_can_be_deleted(
    deletion: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", deletion])
    cli.main("train", TrainConfig, lambda config, sweep: print(config.model.args, [*config.augment]))
    assert capsys.readouterr().out == expected


def test_text_that_looks_like_an_interpolation_is_no_interpolation() -> None:
    done = call("deepfake_cls.train", "data=folder", 'data.root="\\${x}"', check=False)
    assert done.stderr.startswith("error: data.root=${x} does not exist")
    assert configure("train", TrainConfig, 'run_dir="~unknown_user/x"').run_dir == "~unknown_user/x"
