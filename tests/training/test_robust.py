"""Re-encoding and blur as augmentations, and ``augment=robust``."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls.config import TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.randomness import generator
from deepfake_cls.training import Batch
from deepfake_cls.training.augment import Pipeline
from deepfake_cls.training.robust import FORMATS, Blur, Encodings, Reencode
from tests.conftest import configure

COUNT = 40


def batch(channels: int = 3, side: int = 32) -> Batch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, side, side, channels), np.uint8)
    return Batch(torch.from_numpy(images), torch.eye(COUNT, dtype=torch.float64), torch.arange(COUNT))


def encoded(image: NDArray[np.uint8], image_format: str, quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image[..., :3].copy()).save(buffer, image_format, quality=quality)
    return np.dstack([np.array(Image.open(buffer)), image[..., 3:]])


@pytest.mark.parametrize("channels", [3, 4])
def test_chosen_images_are_encoded_by_the_codec_of_their_format(channels: int) -> None:
    before = batch(channels)
    part = Reencode(0.6, 30)
    drawn = part.draw(generator(0, "reencode"), before, 0.0)
    after = part.apply(before, drawn).images.numpy()
    for row, image in enumerate(before.images.numpy()):
        image_format, quality = FORMATS[drawn.formats[row]], int(drawn.qualities[row])
        expected = encoded(image, image_format, quality) if drawn.chosen[row] else image
        np.testing.assert_array_equal(after[row], expected)
    assert 15 < drawn.chosen.sum() < 33  # 24 expected
    assert {*drawn.formats.tolist()} == {0, 1}
    assert drawn.qualities.min() >= 30
    assert drawn.qualities.max() > 90


def test_the_probability_changes_only_which_images_are_encoded() -> None:
    few, many = (Reencode(p).draw(generator(1, "reencode"), batch(), 0.0) for p in (0.2, 0.9))
    assert torch.equal(few.formats, many.formats)
    assert torch.equal(few.qualities, many.qualities)
    assert bool((few.chosen <= many.chosen).all())
    qualities = torch.cat([Reencode(1, 50).draw(generator(s, "q"), batch(), 0.0).qualities for s in range(100)])
    assert {*qualities.tolist()} == {*range(50, 101)}


@pytest.mark.parametrize("channels", [3, 4])
def test_chosen_images_are_blurred_by_a_gaussian(channels: int) -> None:
    before = batch(channels)
    after = Blur(0.5, 1.0).apply(before, (torch.arange(COUNT) % 2 == 0, 0.8)).images.numpy()
    for row, image in enumerate(before.images.numpy()):
        expected = image.astype(float)
        if row % 2 == 0:
            filtered = scipy.ndimage.gaussian_filter(expected[..., :3], 0.8, mode="mirror", radius=3, axes=(0, 1))
            expected[..., :3] = filtered
        np.testing.assert_allclose(after[row], expected, atol=0.51)


def test_standard_deviations_are_uniform_and_images_may_be_small() -> None:
    drawn = [Blur(0.3, 2.0).draw(generator(seed, "blur"), batch(), 0.0) for seed in range(300)]
    sigmas = [sigma for _, sigma in drawn]
    assert 0.1 <= min(sigmas) < 0.2
    assert 1.9 < max(sigmas) <= 2.0
    assert abs(np.mean(sigmas) - 1.05) < 0.1
    assert abs(torch.stack([chosen for chosen, _ in drawn]).double().mean() - 0.3) < 0.02
    small = batch(side=2)
    assert Blur(1.0, 2.0).apply(small, (torch.ones(COUNT, dtype=torch.bool), 2.0)).images.shape == small.images.shape


def test_a_process_augments_its_rows_as_the_whole_batch() -> None:
    augment = dict(configure("train", TrainConfig, "augment=robust").augment)
    pipeline, whole, rows = Pipeline(augment, 0), batch(), torch.tensor([3, 17, 39])
    for step in range(4):
        drawn = pipeline.draw(whole, 0, step, 0.1)
        needed = pipeline.needed(drawn, rows)
        assert needed is not None
        part = pipeline.apply(whole.rows(needed), drawn, needed)
        expected = pipeline.apply(whole, drawn)
        assert torch.equal(part.images[torch.searchsorted(needed, rows)], expected.images[rows])
        again = pipeline.apply(replace(whole), drawn)
        assert torch.equal(again.images, expected.images)


def test_robust_comes_before_cutmix_and_can_replace_the_augmentation_of_best() -> None:
    for arm in ((), ("arm=best",)):
        config = configure("train", TrainConfig, "augment=robust", *arm)
        assert [*config.augment] == ["alternating_flip", "shift", "blur", "reencode", "cutmix"]
    best = configure("train", TrainConfig, "augment=best").augment
    assert {name: config.augment[name] for name in best} == best


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"reencode": {"p": 2}}, "augment.reencode.p=2: expected a probability"),
        ({"reencode": {"p": 0.5, "lowest": 0}}, "augment.reencode.lowest=0: expected a quality, 1 to 100"),
        ({"blur": {"p": 0.5, "sigma": 0}}, "augment.blur.sigma=0: expected 0.1 to 10 pixels"),
    ],
)
def test_strengths_out_of_range_are_refused(augment: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pipeline(augment, 0)


def test_nothing_is_changed_where_no_image_is_chosen() -> None:
    none = torch.zeros(COUNT, dtype=torch.bool)
    encodings = Encodings(none, torch.zeros(COUNT, dtype=torch.int64), torch.full((COUNT,), 50))
    before = batch()
    assert Reencode(0.5).apply(before, encodings) is before
    assert Blur(0.5).apply(before, (none, 1.0)) is before
