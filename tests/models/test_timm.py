"""``model=timm``: an architecture of timm trains, and its checkpoint alone rebuilds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepfake_cls import evaluate, train
from deepfake_cls.checkpoints import load_model
from deepfake_cls.config import EvaluateConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.models import build
from deepfake_cls.records import read_predictions, read_record
from tests.conftest import SMALL_DATA, SMALL_NET, configure

timm = pytest.importorskip("timm")
SMALL = "test_resnet"  # 0.5 million parameters
OVERRIDES = [*SMALL_DATA, *SMALL_NET, "data.image_size=32", "epochs=1", "model=timm"]


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *OVERRIDES, *overrides), False)


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_an_architecture_trains_and_is_rebuilt_from_its_checkpoint(channels: str) -> None:
    fit(f"model.args.architecture={SMALL}", f"channels={channels}", "run_dir=out")
    record = read_record(Path("out"))
    assert record.config["model"] == {"name": "timm", "args": {"architecture": SMALL, "pretrained": False}}
    model = load_model("out/checkpoints/last.ckpt")
    expected = timm.create_model(SMALL, in_chans=len(channels), num_classes=5)
    assert {name: value.shape for name, value in model.network.get_submodule("body").state_dict().items()} == {
        name: value.shape for name, value in expected.state_dict().items()
    }
    overrides = [*SMALL_DATA, "data.image_size=32", "trainer.threads=1", "trainer.progress=false", "batch_size=64"]
    overrides += ["checkpoint=out/checkpoints/last.ckpt", "run_dir=score"]
    evaluate.run(configure("evaluate", EvaluateConfig, *overrides), False)
    before, after = (read_predictions(Path(run) / "predictions.npz")[2] for run in ("out", "score"))
    np.testing.assert_array_equal(after, before)
    with np.load("out/predictions.npz") as arrays:
        assert arrays["features"].shape == (20, expected.num_features)


def test_initial_weights_follow_from_the_seed() -> None:
    shared: dict[str, Any] = {"in_channels": 3, "num_classes": 5, "width": 8, "dropout": 0.0}
    first, again, other = (
        build("timm", {"architecture": SMALL}, **shared, seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["body.conv1.0.weight"], other["body.conv1.0.weight"])


def test_dropout_of_the_head_is_the_key_dropout() -> None:
    built = build("timm", {"architecture": SMALL}, in_channels=3, num_classes=5, width=8, dropout=0.4)
    assert built.get_submodule("body").drop_rate == 0.4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.args.architecture=test_resne"], "model.args.architecture=test_resne: timm has no such .*test_resnet"),
        (["model.args.architecture=xyzzy"], r"architecture=xyzzy: timm has no such .*timm.list_models\(\) lists all"),
        ([], "model.args.architecture: missing; .*model.args.architecture=VALUE"),
        (["model.args.architecture=test_resnet", "model.args.depth=9"], "model.args.depth: .*architecture, pretrained"),
    ],
)
def test_wrong_arguments_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit(*overrides)
    assert "\n" not in str(caught.value)
