from __future__ import annotations

import torch
from torch import nn

from deepfake_cls.randomness import generator
from deepfake_cls.training.dropout import KeyedDropout


def dropped(own: slice, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What two dropout layers make of ones, in a step of ten images of which ``own`` are this process's."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.2)).train()
    keyed = KeyedDropout(network)
    keyed.begin(generator(seed, "dropout"), 10, own)
    first = network[0](torch.ones(10, 400)[own])
    return first, network[1](torch.ones(10, 400)[own])


def test_masks_are_those_of_the_generator_in_the_order_of_the_layers() -> None:
    draws = generator(0, "dropout")
    first, second = dropped(slice(0, 10))
    assert torch.equal(first, (torch.rand(10, 400, generator=draws) >= 0.5) / 0.5)
    assert torch.equal(second, (torch.rand(10, 400, generator=draws) >= 0.2) / 0.8)
    assert not torch.equal(dropped(slice(0, 10), seed=1)[0], first)


def test_a_share_of_the_batch_has_its_rows_of_the_global_mask() -> None:
    for whole, part in zip(dropped(slice(0, 10)), dropped(slice(4, 7)), strict=True):
        assert torch.equal(whole[4:7], part)
    assert dropped(slice(10, 10))[0].shape == (0, 400)


def test_nothing_is_dropped_in_evaluation_and_the_layer_itself_decides_before_the_first_step() -> None:
    network = nn.Sequential(nn.Dropout(0.5))
    keyed = KeyedDropout(network)
    ones = torch.ones(10, 400)
    assert 0.3 < float((network(ones) == 0).float().mean()) < 0.7
    keyed.begin(generator(0, "dropout"), 10, slice(0, 10))
    assert torch.equal(network.eval()(ones), ones)
