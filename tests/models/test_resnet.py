from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from deepfake_cls.config import TrainConfig, conf_dir
from deepfake_cls.models import build
from deepfake_cls.models.resnet import ResidualBlock, ResidualNet
from tests.conftest import configure


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_count_of_the_paper() -> None:
    assert parameters(ResidualNet(4, 5, 64)) == 11_087_749
    # One input channel less in the stem: 64 filters of 3×3.
    assert parameters(ResidualNet(3, 5, 64)) == 11_087_749 - 64 * 9


def test_shapes_are_the_papers_except_in_the_last_stage() -> None:
    network = ResidualNet(4, 5, 8).eval()
    shapes: list[tuple[int, ...]] = []
    for module in (network.bn, *network.stages):
        module.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    logits = network(torch.zeros(2, 4, 100, 100, dtype=torch.uint8))
    assert shapes == [(8, 100, 100), (16, 50, 50), (32, 25, 25), (64, 13, 13)]  # the paper says 12×12
    assert logits.shape == (2, 5)


def test_block_equals_its_formula() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, 4, stride=2).eval()
    x = torch.randn(2, 3, 9, 9)
    conv = torch.nn.functional.conv2d
    y: Tensor = block.bn2(
        conv(
            block.bn1(conv(x, block.conv1.weight, stride=2, padding=1)).clamp(min=0),
            block.conv2.weight,
            padding=1,
        )
    )
    assert isinstance(block.skip, torch.nn.Sequential)
    projection, norm = block.skip
    assert isinstance(projection, torch.nn.Conv2d)
    skip = norm(conv(x, projection.weight, stride=2))
    assert torch.allclose(block(x), (y + skip).clamp(min=0), atol=1e-6)


def test_skip_is_the_identity_for_equal_shapes() -> None:
    block = ResidualBlock(4, 4).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 4, 5, 5)
    assert torch.allclose(block(x), x, atol=1e-6)  # F(x) = 0, so relu(0 + x) = x for x ≥ 0


def test_the_network_normalises_its_input_once() -> None:
    network = ResidualNet(3, 2, 8).eval()
    inputs_of_conv: list[Tensor] = []
    network.conv.register_forward_pre_hook(lambda _m, inputs: inputs_of_conv.append(inputs[0].clone()))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    network(images)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - 0.5) / 0.5
    assert torch.allclose(inputs_of_conv[0][0, :, 0, 0], expected, atol=1e-6)


def test_weights_depend_on_seed_and_name() -> None:
    first, again, other = (ResidualNet(4, 5, 8) for _ in range(3))
    first.initialise(1)
    torch.rand(3)
    again.initialise(1)
    other.initialise(2)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        if a.dim() > 1:
            assert not torch.equal(a, c), name
    flat = [p.flatten()[:8] for n, p in first.named_parameters() if p.dim() > 1]
    normed = torch.stack([row / row.abs().max() for row in flat])
    assert len(torch.unique(normed, dim=0)) == len(flat)  # no two layers have the same random numbers


def test_rgba_weights_are_rgb_weights_plus_alpha() -> None:
    rgb, rgba = ResidualNet(3, 5, 8), ResidualNet(4, 5, 8)
    rgb.initialise(1)
    rgba.initialise(1)
    assert torch.equal(rgba.conv.weight[:, :3], rgb.conv.weight)
    assert rgba.conv.weight[:, 3].abs().sum() > 0
    for (name, a), b in zip(rgb.named_parameters(), rgba.parameters(), strict=True):
        assert name == "conv.weight" or torch.equal(a, b), name


@pytest.mark.parametrize("layer", ["stages.0.0.conv1", "fc1"])
def test_weights_are_uniform_within_the_bound(layer: str) -> None:
    network = ResidualNet(4, 5, 32)
    network.initialise(0)
    weight = network.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    bound = weight[0].numel() ** -0.5
    assert weight.abs().max() <= bound
    assert abs(float(weight.detach().std()) - bound / 3**0.5) < 0.03 * bound


def test_without_skips_all_other_weights_are_the_same() -> None:
    with_skips, plain = ResidualNet(3, 5, 8), ResidualNet(3, 5, 8, skips=False)
    skips = {name for name, _ in with_skips.named_parameters() if ".skip." in name}
    assert len(skips) == 9  # the weights of a convolution and its normalisation, in three blocks
    assert {n for n, _ in plain.named_parameters()} == {n for n, _ in with_skips.named_parameters()} - skips
    for network in (with_skips, plain):
        network.initialise(1)
    weights = dict(with_skips.named_parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in plain.named_parameters())
    block = ResidualBlock(4, 4, skips=False).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    assert not block(torch.rand(1, 4, 5, 5)).any()  # F(x) = 0, and nothing goes around it


def shipped_networks() -> Iterator[tuple[str, torch.nn.Module]]:
    """Each network that the files in ``conf`` can build, on the meta device."""

    def configs(group: str) -> list[TrainConfig]:
        names = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
        return [configure("train", TrainConfig, f"{group}={name}") for name in names]

    scales, arms = configs("scale"), configs("arm")
    widths = {config.width for config in (*scales, *arms)}
    for width, arm in itertools.product(sorted(widths), arms):
        with torch.device("meta"):
            options: dict[str, Any] = {
                "in_channels": len(arm.channels),
                "num_classes": 5,
                "width": width,
                "dropout": arm.dropout,
            }
            network = build(arm.model.name, arm.model.args, **options, seed=None)
        yield f"width={width} channels={arm.channels} model.args={arm.model.args}", network


def has_the_fault(module: torch.nn.Module) -> bool:
    """Whether oneDNN's weight gradient of this convolution writes past its workspace in channels-last layout.

    A 1×1 convolution with a stride above 1 whose input channels do not fill a SIMD block: 8 channels on AVX2, 16 on
    AVX-512 (github.com/uxlfoundation/oneDNN/issues/6035).
    """
    return (
        isinstance(module, torch.nn.Conv2d)
        and max(module.kernel_size) == 1
        and max(module.stride) > 1
        and module.in_channels < 16
    )


def test_no_shipped_network_has_a_convolution_with_the_fault_of_onednn() -> None:
    networks = list(shipped_networks())
    assert len(networks) >= 3 * 2
    for name, network in networks:
        assert not any(has_the_fault(module) for module in network.modules()), name
    assert has_the_fault(torch.nn.Conv2d(8, 16, 1, 2))


LAYOUTS = (torch.contiguous_format, torch.channels_last)


def relative_error(actual: Tensor | None, expected: Tensor | None) -> float:
    assert actual is not None
    assert expected is not None
    return float((actual.double() - expected).norm() / expected.norm())


# The kernels of oneDNN depend on the remainder of the channels by 8 and by 16; the test of a block has all widths.
@pytest.mark.parametrize("width", [2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24])
def test_gradients_of_the_network_equal_those_of_float64_in_both_layouts(width: int) -> None:
    rng = torch.Generator().manual_seed(width)
    images = torch.randint(0, 256, (4, 3, 100, 100), dtype=torch.uint8, generator=rng)
    upstream = torch.rand(4, 3, generator=rng, dtype=torch.float64)

    def network(dtype: torch.dtype, layout: torch.memory_format) -> ResidualNet:
        built = ResidualNet(3, 3, width, dropout=0)
        built.initialise(width)
        built.layout = layout
        built.to(dtype=dtype).to(memory_format=layout)
        torch.autograd.backward(built(images), upstream.to(dtype))
        return built

    expected = dict(network(torch.float64, torch.contiguous_format).named_parameters())
    for layout in LAYOUTS:
        for name, parameter in network(torch.float32, layout).named_parameters():
            # Measured: at most 0.02, where the gradients of noise nearly cancel.
            assert relative_error(parameter.grad, expected[name].grad) < 0.05, (name, layout)


@pytest.mark.parametrize("width", range(2, 25))
def test_gradients_of_a_block_in_bf16_equal_those_of_float64_in_both_layouts(width: int) -> None:
    rng = torch.Generator().manual_seed(width)
    images = torch.randn(4, width, 99, 99, generator=rng).bfloat16()
    upstream = torch.rand(4, 2 * width, 50, 50, generator=rng).bfloat16()
    torch.manual_seed(width)
    weights = ResidualBlock(width, 2 * width, 2).bfloat16().state_dict()  # of few bits, and so the same for both

    def block(dtype: torch.dtype, layout: torch.memory_format) -> ResidualBlock:
        built = ResidualBlock(width, 2 * width, 2)
        built.load_state_dict(weights)
        built.to(dtype=dtype).to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float64):
            y = built(images.to(dtype).contiguous(memory_format=layout))
        torch.autograd.backward(y, upstream.to(y.dtype))
        return built

    expected = dict(block(torch.float64, torch.contiguous_format).named_parameters())
    for layout in LAYOUTS:
        for name, parameter in block(torch.float32, layout).named_parameters():
            # Measured: at most 0.09, where rounding moves a few values across the threshold of the ReLU.
            assert relative_error(parameter.grad, expected[name].grad) < 0.15, (name, layout)
