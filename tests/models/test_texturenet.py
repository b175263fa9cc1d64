from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepfake_cls.errors import InputError
from deepfake_cls.models import build
from deepfake_cls.models.image_statistics import GROUPS, image_statistics
from deepfake_cls.models.texturenet import Moments, TextureNet


def random_images(count: int = 3, side: int = 24, channels: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=rng)


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_count() -> None:
    assert parameters(TextureNet(3, 5, 16)) == 1_012_389


@pytest.mark.parametrize("moments", [True, False])
@pytest.mark.parametrize("statistics", [GROUPS, ["colours"], []])
@pytest.mark.parametrize("side", [8, 13, 32])
def test_logits_have_their_shape(moments: bool, statistics: list[str], side: int) -> None:
    network = TextureNet(4, 7, 4, moments=moments, statistics=statistics)
    assert hasattr(network, "image_features") == bool(statistics)
    images = random_images(5, side, 4)
    features = (network.image_features(images),) if statistics else ()
    assert network(images, *features).shape == (5, 7)
    assert network.eval()(images[:1], *(part[:1] for part in features)).shape == (1, 7)


def test_the_head_sees_mean_and_deviation_of_every_stage() -> None:
    network = TextureNet(3, 2, 4, statistics=[]).double().eval()
    outputs: list[Tensor] = []
    for stage in network.stages:
        stage.register_forward_hook(lambda _m, _i, out: outputs.append(out.clone()))
    seen: list[Tensor] = []
    assert network.norm is not None
    network.norm.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    network(random_images())
    expected = []
    for out, side in zip(outputs, (24, 12, 6, 3), strict=True):
        assert out.shape[2:] == (side, side)
        flat = out.flatten(2)
        variance = (flat**2).mean(dim=2) - flat.mean(dim=2) ** 2
        expected += [flat.mean(dim=2), (variance + 1e-4).sqrt().log()]
    torch.testing.assert_close(seen[0], torch.cat(expected, dim=1))


def test_moments_and_their_gradients_equal_var_mean() -> None:
    rng = torch.Generator().manual_seed(0)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        values = torch.randn((3, 4, 6, 5), generator=rng).relu().to(dtype).to(memory_format=torch.channels_last)
        ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
        weights = torch.randn((2, 3, 4), generator=rng, dtype=torch.promote_types(dtype, torch.float32))
        mean, variance = Moments.apply(ours)
        expected = torch.var_mean(theirs.to(weights.dtype), dim=(2, 3), correction=0)[::-1]
        torch.testing.assert_close((mean, variance), expected, atol=tolerance, rtol=tolerance)
        for a, b in ((mean, variance), expected):
            (weights[0] * a + weights[1] * b).sum().backward()  # type: ignore[no-untyped-call]
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=tolerance, rtol=tolerance)
        assert ours.grad.is_contiguous(memory_format=torch.channels_last)


def test_statistics_are_standardised_and_clipped() -> None:
    network = TextureNet(3, 2, 4).eval()
    branch = network.branch
    assert branch is not None
    features = network.image_features(random_images(40))
    assert torch.equal(features, image_statistics(random_images(40), GROUPS))
    network.fit_image_features(features)
    seen: list[Tensor] = []
    branch.dense.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    branch(features)
    varying = features.std(dim=0) > 1e-4
    torch.testing.assert_close(seen[0].mean(dim=0)[varying], torch.zeros(int(varying.sum())), atol=0.05, rtol=0)
    branch(features + 1e9)
    assert seen[1].max() == 5
    assert torch.isfinite(seen[1]).all()


def test_a_statistic_that_does_not_vary_in_training_gives_finite_values() -> None:
    network = TextureNet(3, 2, 4)
    assert network.branch is not None
    network.fit_image_features(torch.ones(5, 989))
    for statistics in (torch.ones(2, 989), torch.full((2, 989), 3.0)):
        assert torch.isfinite(network.branch(statistics)).all()


def test_without_features_the_network_computes_them() -> None:
    network = TextureNet(3, 2, 4).eval()
    images = random_images()
    assert torch.equal(network(images), network(images, network.image_features(images)))
    assert not torch.equal(network(images), network(images, network.image_features(images.flip(0))))


def test_mean_and_deviation_travel_with_the_weights() -> None:
    network = TextureNet(3, 2, 4)
    network.fit_image_features(network.image_features(random_images(10)))
    copy = TextureNet(3, 2, 4)
    copy.load_state_dict(network.state_dict())
    assert copy.branch is not None
    assert network.branch is not None
    assert torch.equal(copy.branch.mean, network.branch.mean)
    assert torch.equal(copy.branch.sd, network.branch.sd)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_one_image_or_none_can_be_trained_on(count: int) -> None:
    network = TextureNet(3, 2, 4)
    images = random_images(2)
    logits: Tensor = network(images[:count], network.image_features(images)[:count])
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.shape == (count, 2)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_head_computes_in_float32_under_autocast() -> None:
    network = TextureNet(3, 2, 4).eval()
    images = random_images()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images, network.image_features(images))
    assert logits.dtype == torch.float32


def test_initial_weights_depend_on_the_seed_only() -> None:
    def first(seed: int) -> Tensor:
        options = {"in_channels": 3, "num_classes": 5, "width": 4, "dropout": 0.3}
        return build("texturenet", {}, **options, seed=seed).get_parameter("stages.0.0.weight")  # type: ignore[arg-type]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("statistics", [["colours", "colors"], True, "colours", 3, None])
def test_an_unknown_group_is_refused(statistics: object) -> None:
    with pytest.raises(InputError, match=r"model.args.statistics=.*: expected a list of colours, .*, or \[\]"):
        build("texturenet", {"statistics": statistics}, in_channels=3, num_classes=2, width=4, dropout=0.0)


def test_a_group_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match="lists a group twice"):
        TextureNet(3, 2, 4, statistics=["colours", "colours"])


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(InputError, match=r"the images are of \[8,7\] pixels; it needs 8 or more"):
        TextureNet(3, 2, 4)(torch.zeros(2, 3, 8, 7, dtype=torch.uint8))
