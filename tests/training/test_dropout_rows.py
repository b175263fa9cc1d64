"""Dropout of layers whose rows are no images, and of layers that drop nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepfake_cls.models import network
from deepfake_cls.randomness import generator
from deepfake_cls.training.dropout import KeyedDropout
from tests.builders import batch, classifier


@network("patches")
class Patches(nn.Module):
    """Four patches an image go through a dense layer as rows of their own."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_channels * 100, 16), nn.Dropout(dropout))
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float().unfold(2, 10, 10).unfold(3, 10, 10) / 255  # (B, C, 2, 2, 10, 10)
        x = x.permute(0, 2, 3, 1, 4, 5).reshape(4 * len(images), -1)
        logits: Tensor = self.head(self.body(x).view(len(images), 4, -1).mean(dim=1))
        return logits


def test_a_layer_whose_rows_are_no_images_draws_from_the_seed() -> None:
    model = classifier(model={"name": "patches", "args": {}}, dropout=0.5).train()
    losses = [model.training_step(batch(), step).item() for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    still = classifier(model={"name": "patches", "args": {}}, dropout=0.0).train()
    assert still.training_step(batch(), 0).item() != losses[0]


def test_a_layer_that_drops_nothing_draws_nothing() -> None:
    layers = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.5))
    dropout = KeyedDropout(layers)
    x = torch.rand(6, 9)
    dropout.begin(generator(0, "test"), 6, slice(0, 6))
    assert torch.equal(layers(x), 2 * x * (torch.rand(6, 9, generator=generator(0, "test")) >= 0.5))
