"""Random numbers are a function of seed, purpose, epoch and step."""

from __future__ import annotations

import torch

from deepfake_cls.randomness import derive, generator


def test_the_same_purpose_gives_the_same_random_numbers() -> None:
    first = torch.rand(5, generator=generator(3, "order", 7))
    torch.rand(100)  # torch's global random state has no effect
    assert torch.equal(first, torch.rand(5, generator=generator(3, "order", 7)))


def test_each_purpose_has_a_seed_of_its_own() -> None:
    seeds = {
        derive(seed, name, epoch, step) for seed in range(4) for name in "ab" for epoch in range(9) for step in range(9)
    }
    assert len(seeds) == 4 * 2 * 9 * 9
    assert derive(0, "a", 1) != derive(1, "a", 0)
    assert derive(0, "a", 11) != derive(0, "a1", 1)


def test_seeds_are_pinned() -> None:
    # Another hash would change every committed result.
    assert derive(0, "weights", "conv") == 5564852948250665801
    assert all(0 <= derive(seed, "x") < 2**63 for seed in range(100))
