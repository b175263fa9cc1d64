from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepfake_cls.config import KnnConfig, PredictConfig, TrainConfig
from deepfake_cls.notation import override
from tests.conftest import configure

TEXTS = [
    "runs/cnn/ab12", "../up", "/a/fotos é", "/a/日本", "/a/x (1)", "it's", 'q"q', "[x]", "{a:1}", "a,b", "a b", " a ",
    "~/x", "~user/x", "~", "epoch=1/x.ckpt", "x#1", "$HOME", "${x}", "\\${x}", "\\\\${x}\\", "a${b", "}", "a\\",
    "a\\\\", '\\"', 'C:\\x\\"', "a\nb", "\tx", "`id`", "$(id)", "a;b", "a&b", "!x", "*", "?", "%s", "@x", "+x", "-x",
    "--x", "a:b", "null", "True", "nan", "Inf", "12", "007", "1e3", "1_000", ".5", "0x1",
]  # fmt: skip
VALUES: list[Any] = [None, True, False, 0, -3, 1.5, 1e-05, 1e22, [96, 96], [], {"a": 1, "b": [None, "x, y", {}]}]


@pytest.mark.parametrize("text", ["~/x", "it's", "${x}", '\\"', "007", "a\nb"])
def test_a_text_comes_back_as_it_was(text: str) -> None:
    config = configure("train", TrainConfig, "data=folder", override("data.root", text))
    assert config.data.root == text


def test_values_come_back_with_their_types() -> None:
    values = {f"value{index}": value for index, value in enumerate([*VALUES, [*TEXTS], {"x": TEXTS}, float("inf")])}
    config = configure("train", TrainConfig, *(override(f"model.args.{key}", value) for key, value in values.items()))
    assert repr(config.model.args) == repr({"skips": True, **values})


def test_values_of_typed_keys_come_back() -> None:
    assert configure("knn", KnnConfig, override("k", [3, 5])).k == [3, 5]
    arguments = [override("data.size", [96, 64]), override("data.resize", True), override("data.fold", None)]
    data = configure("train", TrainConfig, "data=folder", "data.root=x", *arguments).data
    assert (data.size, data.resize, data.fold) == ([96, 64], True, None)
    assert configure("predict", PredictConfig, "checkpoint=x", override("output", "a$b")).output == "a$b"


def test_texts_come_back_through_a_shell() -> None:
    """A shell splits the command, and the command composes and validates its configuration."""
    code = (
        "import json, sys\n"
        "from deepfake_cls.config import TrainConfig\n"
        "from tests.conftest import configure\n"
        "print(json.dumps(configure('train', TrainConfig, *sys.argv[1:]).model.args))"
    )
    arguments = shlex.join([override(f"model.args.value{index}", text) for index, text in enumerate(TEXTS)])
    command = f"{shlex.join([sys.executable, '-c', code])} {arguments}"
    root = Path(__file__).parents[1]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=root, check=True)
    assert [*json.loads(done.stdout).values()] == [True, *TEXTS]  # skips, and the texts
