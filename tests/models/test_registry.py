"""Networks by name: selected on the command line, built from a seed, refused by key."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from deepfake_cls import train
from deepfake_cls.config import ModelConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.models import build, network
from deepfake_cls.models.registry import arguments
from deepfake_cls.records import read_record
from tests.conftest import ROOT, SMALL_DATA, SMALL_NET, call, configure

SHARED: dict[str, Any] = {"in_channels": 3, "num_classes": 5, "width": 4, "dropout": 0.5}


@network("linear")
class Linear(nn.Module):
    """A linear layer on mean colours, initialised by torch."""

    def __init__(self, in_channels: int, num_classes: int, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.head = nn.Linear(in_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.factor * images.float().mean(dim=(2, 3)) / 255)
        return logits


@network("picky")
def picky(in_channels: int, num_classes: int, factor: float, dropout: float) -> nn.Module:
    built = Linear(in_channels, num_classes, factor)
    built.register_buffer("dropped", torch.tensor(dropout))
    return built


def model(*overrides: str) -> ModelConfig:
    return configure("train", TrainConfig, *overrides).model


def fit(*overrides: str) -> None:
    small = [*SMALL_DATA, *SMALL_NET, "data.image_size=16", "epochs=1"]
    train.run(configure("train", TrainConfig, *small, *overrides), False)


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        fit(*overrides)
    assert not Path("runs").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["linear", "resnet"])
def test_weights_follow_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(name, {}, **SHARED, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is unchanged
    torch.rand(7)
    again = build(name, {}, **SHARED, seed=3).state_dict()
    other = build(name, {}, **SHARED, seed=4).state_dict()
    matrices = [key for key, value in first.items() if value.ndim > 1]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in matrices)


def test_shared_arguments_go_to_networks_that_name_them() -> None:
    built = build("picky", {"factor": 2.0}, **SHARED)
    assert float(built.get_buffer("dropped")) == 0.5
    assert set(arguments("picky")) == {"factor"}  # model.args gives no dropout


@pytest.mark.parametrize("name", ["resnet", "timm"])
def test_the_defaults_of_a_file_are_those_of_the_network(name: str) -> None:
    file = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml"))
    defaults = {
        key: "???" if parameter.default is inspect.Parameter.empty else parameter.default
        for key, parameter in arguments(name).items()
    }
    assert file == {"name": name, "args": defaults}


def test_a_registered_network_needs_no_file() -> None:
    assert model("model.name=linear") == ModelConfig("linear", {})
    assert model("model.name=linear", "model.args={}") == ModelConfig("linear", {})
    assert model("model.name=linear", "model.args={factor: 2.5}") == ModelConfig("linear", {"factor": 2.5})
    for overrides in (["model.name=linear", "model.args.factor=2.5"], ["model.args.factor=2.5", "model.name=linear"]):
        assert model(*overrides) == ModelConfig("linear", {"factor": 2.5})
    fit("model.name=linear", "model.args={}", "run_dir=out")
    assert read_record(Path("out")).config["model"] == {"name": "linear", "args": {}}


def test_the_arguments_of_a_file_stay_with_its_network() -> None:
    assert model("model=timm", "model.name=resnet") == ModelConfig("resnet", {})
    assert model("model=timm", "model.args.architecture=x").args == {"architecture": "x", "pretrained": False}
    assert model("model=resnet", "model.name=resnet", "model.args.skips=false").args == {"skips": False}
    # Arguments on the command line are not dropped but refused.
    overrides = ["model=timm", "model.args.architecture=resnet18", "model.name=resnet"]
    assert refusal(*overrides) == "model.args.architecture: unknown; model.name=resnet takes skips."


def test_wrong_arguments_of_a_network_are_a_one_line_error() -> None:
    assert refusal("model.name=linear", "model.args.skips=true") == (
        "model.args.skips: unknown; model.name=linear takes factor."
    )
    assert refusal("model.args.skips=maybe") == "model.args.skips=maybe: expected true or false."
    assert refusal("model.args.depth=18") == "model.args.depth: unknown; model.name=resnet takes skips."
    assert refusal("model.name=picky") == (
        "model.args.factor: missing; model.name=picky needs it, as in model.args.factor=VALUE."
    )
    assert refusal("model.name=vgg").startswith("model.name=vgg: unknown; expected one of linear, ")
    assert refusal("model.name=vgg").endswith("A part of your own needs plugins=[MODULE].")


def test_an_unknown_model_file_is_a_one_line_error() -> None:
    process = call("deepfake_cls.train", "model=vgg", check=False)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == (
        "error: model=vgg: unknown; expected one of best, resnet, texturenet, timm. A network of your own needs"
        " plugins=[MODULE] and model.name=vgg.\n"
    )
