from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as torchvision_functional

from deepfake_cls.errors import InputError
from deepfake_cls.randomness import generator
from deepfake_cls.training.augment import Batch, CutMix, Flip, Mix, Pipeline, Rotation, Shift
from deepfake_cls.training.pixels import flip, rotate, shift

BLACK = torch.zeros(4, dtype=torch.uint8)


def images(count: int = 6, height: int = 20, width: int = 30) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 4), dtype=torch.uint8, generator=generator(0, "test"))


def batch(x: Tensor) -> Batch:
    return Batch(x, torch.eye(len(x), dtype=torch.float64), torch.arange(len(x)))


def shapes(count: int, height: int = 100, width: int = 100) -> Batch:
    return batch(torch.empty((count, height, width, 4), dtype=torch.uint8, device="meta"))


def test_rotation_by_0_degrees_is_the_identity() -> None:
    x = images()
    out = rotate(x, torch.zeros(6), BLACK)
    assert torch.equal(out, x)


def test_rotation_equals_torchvision() -> None:
    x = images(9)
    degrees = torch.tensor([-10.0, -7.3, -1.0, 0.4, 3.0, 9.99, 45.0, 90.0, 180.0])
    out = rotate(x, degrees, BLACK)
    for image, angle, rotated in zip(x, degrees, out, strict=True):
        expected = torchvision_functional.rotate(image.permute(2, 0, 1), float(angle)).permute(1, 2, 0)
        # Half-way between two pixels, the rounding of a sine decides which one is nearest.
        assert (expected != rotated).any(dim=-1).float().mean() < 0.01, float(angle)


def test_empty_corners_have_the_fill_in_every_channel() -> None:
    x = torch.full((1, 50, 50, 4), 200, dtype=torch.uint8)
    fill = torch.tensor([0, 0, 0, 255], dtype=torch.uint8)
    out = rotate(x, torch.tensor([10.0]), fill)
    assert out[0, 0, 0].tolist() == [0, 0, 0, 255]
    assert out[0, 25, 25].tolist() == [200] * 4
    assert {tuple(pixel) for pixel in out.view(-1, 4).tolist()} == {(0, 0, 0, 255), (200,) * 4}


def test_flip_comes_before_rotation_and_mirrors_only_selected_images() -> None:
    x = images(2)
    selected = torch.tensor([True, False])
    degrees = torch.tensor([8.0, 8.0])
    augmented = Pipeline({"flip": {"p": 0.5}, "rotation": {"degrees": 8.0}}, 0).apply(batch(x), [selected, degrees])
    assert torch.equal(augmented.images, rotate(flip(x, selected), degrees, BLACK))
    assert torch.equal(flip(x, selected)[0], x[0].flip(1))
    assert torch.equal(flip(x, selected)[1], x[1])


def test_distributions_of_flips_and_angles() -> None:
    assert abs(float(Flip(0.5).draw(generator(0, "f"), shapes(20_000), 0.0).float().mean()) - 0.5) < 0.015
    angles = Rotation(10.0).draw(generator(0, "r"), shapes(20_000), 0.0)
    assert angles.min() >= -10
    assert angles.max() <= 10
    assert abs(float(angles.mean())) < 0.2
    assert abs(float(angles.std()) - 10 / 3**0.5) < 0.1


def test_cutmix_mixes_a_share_p_of_the_batches() -> None:
    mixed = [CutMix(0.5, 1.0).draw(generator(0, "c", i), shapes(8), 0.0) is not None for i in range(4_000)]
    assert abs(sum(mixed) / len(mixed) - 0.5) < 0.025
    assert CutMix(0.0, 1.0).draw(generator(0, "c"), shapes(8, 100, 100), 0.0) is None
    assert CutMix(1.0, 1.0).draw(generator(0, "c"), shapes(8, 100, 100), 0.0) is not None


def test_label_weight_equals_pixel_area_also_for_clipped_boxes() -> None:
    clipped = 0
    for i in range(500):
        cutmix = CutMix(1.0, 1.0).draw(generator(1, "c", i), shapes(2, 40, 60), 0.0)
        assert cutmix is not None
        top, bottom, left, right = cutmix.box
        assert 0 <= top <= bottom <= 40
        assert 0 <= left <= right <= 60
        clipped += top == 0 or left == 0 or bottom == 40 or right == 60
        one = torch.zeros(2, 40, 60, 4, dtype=torch.uint8)
        one[1] = 1
        swapped = Mix(cutmix.box, torch.tensor([1, 0]), cutmix.weight)
        share = CutMix(1.0, 1.0).apply(batch(one), swapped).images[0].float().mean()
        assert float(share) == pytest.approx(1 - cutmix.weight, abs=1e-6)
    assert clipped > 100


def test_lambda_is_uniform_for_alpha_1() -> None:
    weights = []
    for i in range(3_000):
        cutmix = CutMix(1.0, 1.0).draw(generator(2, "c", i), shapes(2, 1_000, 1_000), 0.0)
        assert cutmix is not None
        top, bottom, left, right = cutmix.box
        if top > 0 and left > 0 and bottom < 1_000 and right < 1_000:
            assert bottom - top == right - left
        weights.append(cutmix.weight)
    # E[λ] after clipping, for λ ~ Beta(1, 1) and a uniform centre: a side s is s − s²/4 long on average.
    mean = sum(weights) / len(weights)
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    side = (1 - u).sqrt()
    expected = 1 - float(((side - side**2 / 4) ** 2).mean())
    assert mean == pytest.approx(expected, abs=0.015)


def test_partners_are_a_permutation_and_boxes_are_theirs() -> None:
    cutmix = CutMix(1.0, 1.0).draw(generator(3, "c"), shapes(16, 20, 30), 0.0)
    assert cutmix is not None
    assert sorted(cutmix.partner.tolist()) == list(range(16))
    x = images(16)
    out = CutMix(1.0, 1.0).apply(batch(x), cutmix).images
    top, bottom, left, right = cutmix.box
    assert torch.equal(out[:, top:bottom, left:right], x[cutmix.partner][:, top:bottom, left:right])
    outside = torch.ones(20, 30, dtype=torch.bool)
    outside[top:bottom, left:right] = False
    assert torch.equal(out[:, outside], x[:, outside])


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"cutmux": None}, "augment=cutmux: unknown; expected one of"),
        ({"flip": 5}, r"augment.flip=5: expected its strengths, \{p: VALUE\}, or null to remove it"),
        ({"alternating_flip": True}, r"augment.alternating_flip=True: expected its strengths, \{\}, or null"),
        ({"shift": {"pixels": 1.5}}, "augment.shift.pixels=1.5: expected an integer"),
        ({"flip": {"q": 1}}, "augment.flip.q: unknown; flip takes p"),
        ({"flip": {}}, "augment.flip.p: missing"),
        ({"flip": {"p": "often"}}, "augment.flip.p=often: expected a probability"),
        ({"flip": {"p": 2}}, "augment.flip.p=2: expected a probability"),
        ({"flip": {"p": True}}, "augment.flip.p=true: expected a probability"),
        ({"cutmix": {"p": 0.5, "alpha": float("inf")}}, "augment.cutmix.alpha=inf: expected a number above 0"),
    ],
)
def test_wrong_strengths_are_refused_by_their_key(augment: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pipeline(augment, 0)


@pytest.mark.parametrize("fault", [lambda x: x.float(), lambda x: x[:3]])
def test_an_augmentation_that_returns_wrong_images_is_named(
    fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flip, "apply", lambda _, batch, drawn: replace(batch, images=fault(batch.images)))
    with pytest.raises(InputError, match=r"Flip.apply returned . images of torch.* expected 6 of torch.uint8 and 6"):
        Pipeline({"flip": {"p": 0.5}}, 0).apply(batch(images()), [None])


def test_a_shift_equals_a_crop_of_the_image_padded_by_reflection() -> None:
    x = images(7, 12, 15)
    offsets = torch.tensor([[0, 0], [3, -4], [-5, 6], [6, 6], [-6, -6], [0, 5], [2, 0]])
    padded = F.pad(x.permute(0, 3, 1, 2).float(), (6, 6, 6, 6), mode="reflect").to(torch.uint8).permute(0, 2, 3, 1)
    for row, (down, right) in enumerate(offsets.tolist()):
        expected = padded[row, 6 - down : 18 - down, 6 - right : 21 - right]
        assert torch.equal(shift(x, offsets)[row], expected)


def test_a_shift_larger_than_the_image_stays_within_it() -> None:
    x = torch.arange(3, dtype=torch.uint8).view(1, 1, 3, 1)
    assert shift(x, torch.tensor([[9, 4]])).flatten().tolist() == [0, 1, 2]  # reflected twice: a period of 4


def test_shifts_are_uniform_whole_pixels_in_both_directions() -> None:
    drawn = Shift(2).draw(generator(0, "s"), shapes(20_000), 0.0)
    values, counts = torch.unique(drawn, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert (counts / drawn.numel() - 0.2).abs().max() < 0.01
    assert abs(float(torch.corrcoef(drawn.T.float())[0, 1])) < 0.03
    x = batch(images())
    assert Shift(0).apply(x, drawn[:6]) is x


def test_two_epochs_show_each_image_and_its_mirror_image_once() -> None:
    pipeline = Pipeline({"alternating_flip": {}}, 0)
    x = replace(batch(images(64)), indices=torch.randperm(10_000, generator=generator(0, "i"))[:64])
    first, second, third = (pipeline.draw(x, epoch, 5, 0.0)[0] for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert torch.equal(pipeline.apply(x, [first]).images, flip(x.images, first))
    large = pipeline.draw(shapes(20_000, 8, 8), 0, 0, 0.0)[0]
    assert abs(float(large.float().mean()) - 0.5) < 0.01
    for classes in (2, 5, 8):  # images in order of their classes, or in turn
        assert abs(float(large[::classes].float().mean()) - 0.5) < 0.02


def test_cutmix_stops_after_a_share_of_the_training_and_changes_nothing_before() -> None:
    def mixes(until: float, progress: float) -> list[bool]:
        cutmix = CutMix(0.5, 1.0, until)
        return [cutmix.draw(generator(0, "c", i), shapes(8), progress) is not None for i in range(100)]

    assert mixes(0.8, 0.79) == mixes(1.0, 0.79)
    assert any(mixes(0.8, 0.79))
    assert not any(mixes(0.8, 0.8))


def test_without_mixing_only_the_images_that_no_augmentation_mixes_change() -> None:
    pipeline = Pipeline({"flip": {"p": 1.0}, "cutmix": {"p": 1.0, "alpha": 1.0}}, 0)
    x = batch(images())
    drawn = pipeline.draw(x, 0, 0, 0.0)
    plain = pipeline.apply(x, drawn, mix=False)
    assert torch.equal(plain.images, x.images.flip(2))
    assert torch.equal(plain.targets, x.targets)
    assert not torch.equal(pipeline.apply(x, drawn).targets, x.targets)
