"""Dropout masks from the run's seed, against masks that the tests draw themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepfake_cls.models import network
from deepfake_cls.randomness import generator
from deepfake_cls.training.dropout import KeyedDropout
from tests.builders import batch, classifier


def dropped(share: slice, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs of two dropout layers for ones, in a step of ten images, of which ``share`` belongs to this process."""
    layers = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.2)).train()
    keyed = KeyedDropout(layers)
    keyed.begin(generator(seed, "dropout"), 10, share)
    first = layers[0](torch.ones(10, 400)[share])
    return first, layers[1](torch.ones(10, 400)[share])


def test_masks_are_drawn_from_the_generator_in_the_order_of_the_layers() -> None:
    rng = generator(0, "dropout")
    first, second = dropped(slice(0, 10))
    assert torch.equal(first, (torch.rand(10, 400, generator=rng) >= 0.5) / 0.5)
    assert torch.equal(second, (torch.rand(10, 400, generator=rng) >= 0.2) / 0.8)
    assert not torch.equal(dropped(slice(0, 10), seed=1)[0], first)


def test_a_share_of_the_batch_has_its_rows_of_the_global_mask() -> None:
    for complete, part in zip(dropped(slice(0, 10)), dropped(slice(4, 7)), strict=True):
        assert torch.equal(complete[4:7], part)
    assert dropped(slice(10, 10))[0].shape == (0, 400)


def test_evaluation_drops_nothing_and_before_the_first_step_the_layer_draws_its_own_mask() -> None:
    layers = nn.Sequential(nn.Dropout(0.5))
    keyed = KeyedDropout(layers)
    ones = torch.ones(10, 400)
    assert 0.3 < float((layers(ones) == 0).float().mean()) < 0.7
    keyed.begin(generator(0, "dropout"), 10, slice(0, 10))
    assert torch.equal(layers.eval()(ones), ones)


@network("patches")
class Patches(nn.Module):
    """A network whose dropout layer gets four patches of each image as rows."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_channels * 100, 16), nn.Dropout(dropout))
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float().unfold(2, 10, 10).unfold(3, 10, 10) / 255  # (B, C, 2, 2, 10, 10)
        x = x.permute(0, 2, 3, 1, 4, 5).reshape(4 * len(images), -1)
        logits: Tensor = self.head(self.body(x).view(len(images), 4, -1).mean(dim=1))
        return logits


def test_a_layer_whose_rows_are_not_images_draws_from_the_seed() -> None:
    model = classifier(model={"name": "patches", "args": {}}, dropout=0.5).train()
    losses = [model.training_step(batch(), step).item() for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    without = classifier(model={"name": "patches", "args": {}}, dropout=0.0).train()
    assert without.training_step(batch(), 0).item() != losses[0]


def test_a_layer_with_probability_0_draws_no_random_numbers() -> None:
    layers = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.5))
    dropout = KeyedDropout(layers)
    x = torch.rand(6, 9)
    dropout.begin(generator(0, "test"), 6, slice(0, 6))
    assert torch.equal(layers(x), 2 * x * (torch.rand(6, 9, generator=generator(0, "test")) >= 0.5))
