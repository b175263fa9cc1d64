"""Augmentation of batches: ``draw`` draws all random numbers, ``apply`` is a pure function of them.

Images are uint8 (B, H, W, C), on any device. An augmentation is a class that is registered with
``@augmentation("name")``; its fields are its strengths. :class:`Augmentation` lists its methods. With two optional
methods, each process of a training on several devices augments only its share of the batch:

- ``select(drawn, rows)`` returns the part of ``drawn`` for these rows.
- ``needed(drawn, rows)`` returns the rows whose pixels the result for ``rows`` depends on, such as those that CutMix
  copies from. Without it, these are ``rows``.

If an augmentation has no ``select``, each process augments the complete batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from deepfake_cls.errors import InputError
from deepfake_cls.randomness import generator, to_device
from deepfake_cls.registry import Registry, check_arguments, check_types
from deepfake_cls.schema import check, number, one_of
from deepfake_cls.training.pixels import flip, rotate, shift


@dataclass(frozen=True)
class Batch:
    """A batch of images and their targets.

    Attributes:
        images: uint8 (B, H, W, C).
        targets: float64 (B, classes), class probabilities; float64 loses no precision when labels are mixed.
        indices: int64 (B,), the index of each image in its split.
        image_features: float32 (B, E), of the unaugmented images; None where the network has none.
        epoch: Number of the epoch, from 0.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    image_features: Tensor | None = None
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, rows: Tensor) -> Batch:
        """Some rows of the batch: int64 (R,)."""
        device_rows = to_device(rows, self.images.device)
        features = None if self.image_features is None else self.image_features[device_rows]
        return Batch(self.images[device_rows], self.targets[device_rows], self.indices[rows], features, self.epoch)


class Augmentation(Protocol):
    """The methods of an augmentation; the module's docstring describes two optional ones."""

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Any:
        """Draw all random numbers for a batch.

        Args:
            rng: CPU generator of this augmentation and step.
            batch: The global batch; its images are on the ``meta`` device, so they have a shape and no pixels.
            progress: Share of the training that is done, 0 to 1.
        """

    def apply(self, batch: Batch, drawn: Any) -> Batch:
        """Augment a batch with what ``draw`` returned."""


augmentation: Registry[str, type[Augmentation]] = Registry("augment")


@augmentation("flip")
@dataclass(frozen=True)
class Flip:
    """Mirror images left to right.

    Attributes:
        p: Probability for each image.
    """

    p: float = number(least=0, most=1, expected="a probability")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Tensor:
        """Which images are mirrored: bool (B,)."""
        return torch.rand(len(batch), generator=rng) < self.p

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Mirror the selected images."""
        return replace(batch, images=flip(batch.images, drawn))

    def select(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """The flags of some rows."""
        return drawn[rows]


@augmentation("alternating_flip")
@dataclass(frozen=True)
class AlternatingFlip:
    """Mirror one half of the images in even epochs and the other half in odd ones (Jordan 2024, arXiv 2404.00498).

    So two epochs show each image and its mirror image once, where a random flip repeats one of them half of the time.
    """

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Tensor:
        """Which images are mirrored: bool (B,); the half of an image depends only on its index."""
        # Knuth's multiplicative hash: neighbouring indices, which often have one class, fall into both halves.
        half = (batch.indices * 2_654_435_761 >> 16) % 2
        return half == batch.epoch % 2

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Mirror the selected images."""
        return replace(batch, images=flip(batch.images, drawn))

    def select(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """The flags of some rows."""
        return drawn[rows]


@augmentation("shift")
@dataclass(frozen=True)
class Shift:
    """Shift each image by whole pixels, and fill the empty edge by reflection; no pixel is interpolated.

    Attributes:
        pixels: Largest shift in each direction.
    """

    pixels: int = number(least=0, expected="0 or more pixels")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Tensor:
        """Shifts down and right, uniform in ±pixels: int64 (B, 2)."""
        return torch.randint(-self.pixels, self.pixels + 1, (len(batch), 2), generator=rng)

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Shift each image."""
        return batch if self.pixels == 0 else replace(batch, images=shift(batch.images, drawn))

    def select(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """The shifts of some rows."""
        return drawn[rows]


@augmentation("rotation")
@dataclass(frozen=True)
class Rotation:
    """Rotate images about their centre, with nearest-neighbour interpolation; empty corners are black.

    Attributes:
        degrees: Largest angle in either direction.
        fill_alpha: Value of empty corners in the alpha channel: ``mask`` (0) or ``constant`` (255).
    """

    degrees: float = number(least=0, most=180, expected="degrees, 0 to 180")
    fill_alpha: str = one_of("mask", "constant")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Tensor:
        """Angles in degrees, uniform in ±degrees: float32 (B,)."""
        return (torch.rand(len(batch), generator=rng) * 2 - 1) * self.degrees

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Rotate each image by its angle."""
        if self.degrees == 0:
            return batch
        fill = torch.zeros(batch.images.shape[3], dtype=torch.uint8)
        fill[3:] = 255 if self.fill_alpha == "constant" else 0
        return replace(batch, images=rotate(batch.images, drawn, fill))

    def select(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """The angles of some rows."""
        return drawn[rows]


@dataclass(frozen=True)
class Mix:
    """The random parameters of CutMix for one batch.

    Attributes:
        box: (top, bottom, left, right) in pixels, clipped to the image; bottom and right are exclusive.
        partner: int64 (B,), the row from which each image takes its box.
        weight: λ after clipping: the share of its pixels, and of its label, that each image keeps.
    """

    box: tuple[int, int, int, int]
    partner: Tensor
    weight: float


@augmentation("cutmix")
@dataclass(frozen=True)
class CutMix:
    """Replace a box of each image by the same box of another image (Yun et al. 2019); one box for a batch.

    λ ~ Beta(alpha, alpha). The box has √(1−λ) of the image's height and width and a uniformly random centre. It is
    clipped to the image, and λ is computed again from the clipped box (Yun et al. 2019; the paper's code).

    Attributes:
        p: Probability that a batch is mixed.
        alpha: Both parameters of the Beta distribution.
        until: Share of the training after which no batch is mixed.
    """

    p: float = number(least=0, most=1, expected="a probability")
    alpha: float = number(above=0)
    until: float = number(1.0, least=0, most=1, expected="a share of the training, 0 to 1")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Mix | None:
        """The box and the partners; None for a batch that is not mixed."""
        # All random numbers are drawn for each batch, so that p changes only which batches are mixed.
        mixed = bool(torch.rand((), generator=rng) < self.p) and progress < self.until
        # Beta(α, α) is the share of one of two Gamma(α) variables. For small α both may underflow to 0.
        gammas = torch._standard_gamma(torch.full((2,), self.alpha, dtype=torch.float64), generator=rng)
        gammas.clamp_(min=torch.finfo(torch.float64).tiny)
        lam = float(gammas[0] / gammas.sum())
        centre = torch.rand(2, generator=rng, dtype=torch.float64)
        partner = torch.randperm(len(batch), generator=rng)
        if not mixed:
            return None
        height, width = batch.images.shape[1:3]
        side = (1.0 - lam) ** 0.5
        cut_height, cut_width = int(height * side), int(width * side)
        row, column = int(centre[0] * height), int(centre[1] * width)
        top, bottom = max(row - cut_height // 2, 0), min(row + cut_height // 2, height)
        left, right = max(column - cut_width // 2, 0), min(column + cut_width // 2, width)
        weight = 1.0 - (bottom - top) * (right - left) / (height * width)
        return Mix((top, bottom, left, right), partner, weight)

    def apply(self, batch: Batch, drawn: Mix | None) -> Batch:
        """Copy the box from each partner, and mix targets and image features by λ."""
        if drawn is None:
            return batch
        top, bottom, left, right = drawn.box
        weight, partner = drawn.weight, to_device(drawn.partner, batch.images.device)
        images = batch.images.clone()
        images[:, top:bottom, left:right] = batch.images[partner, top:bottom, left:right]
        targets = weight * batch.targets + (1.0 - weight) * batch.targets[partner]
        features = batch.image_features
        if features is not None:
            features = weight * features + (1.0 - weight) * features[partner]
        return replace(batch, images=images, targets=targets, image_features=features)

    def select(self, drawn: Mix | None, rows: Tensor) -> Mix | None:
        """The parameters of some rows; an image whose partner is not among them becomes its own partner."""
        if drawn is None:
            return None
        position = torch.full((len(drawn.partner),), -1)
        position[rows] = torch.arange(len(rows))
        partner = position[drawn.partner[rows]]
        return replace(drawn, partner=torch.where(partner < 0, torch.arange(len(rows)), partner))

    def needed(self, drawn: Mix | None, rows: Tensor) -> Tensor:
        """The rows and their partners."""
        return rows if drawn is None else torch.unique(torch.cat([rows, drawn.partner[rows]]))


def _build(name: str, strengths: Mapping[str, Any]) -> Augmentation:
    """Build an augmentation, or raise an error that names the wrong key."""
    factory = augmentation[name]
    parameters = inspect.signature(factory).parameters
    if not isinstance(strengths, Mapping):
        example = ", ".join(f"{parameter}: VALUE" for parameter in parameters)
        raise InputError(f"augment.{name}={strengths}: expected its strengths, {{{example}}}, or null to remove it.")
    check_arguments(parameters, strengths, f"augment.{name}", name)
    built = factory(**strengths)
    if is_dataclass(built):
        check(built, f"augment.{name}.")
    check_types(parameters, strengths, f"augment.{name}")
    return built


class Pipeline:
    """The augmentations of a training, in order.

    Args:
        augment: Strengths by name; None removes an augmentation.
        seed: The run's seed.

    Raises:
        InputError: If a name or a strength is unknown, or a value is out of range.
    """

    def __init__(self, augment: Mapping[str, Mapping[str, Any] | None], seed: int) -> None:
        self.seed = seed
        for name in augment:
            augmentation[name]  # refuses unknown names, also of removed augmentations
        self.parts = {name: _build(name, strengths) for name, strengths in augment.items() if strengths is not None}

    def draw(self, batch: Batch, epoch: int, step: int, progress: float) -> list[Any]:
        """Draw the random numbers of each augmentation for the global batch, whose pixels are not read."""
        shape = (len(batch), *batch.images.shape[1:])
        shapes = replace(batch, images=torch.empty(shape, dtype=torch.uint8, device="meta"), epoch=epoch)
        return [
            part.draw(generator(self.seed, name, epoch, step), shapes, progress) for name, part in self.parts.items()
        ]

    def needed(self, drawn: list[Any], rows: Tensor) -> Tensor | None:
        """Rows of the batch whose pixels the result for some rows depends on, ascending; None for all.

        Args:
            drawn: From :meth:`draw`.
            rows: int64 (R,).
        """
        if not all(hasattr(part, "select") for part in self.parts.values()):
            return None
        for part, part_drawn in reversed(list(zip(self.parts.values(), drawn, strict=True))):
            if hasattr(part, "needed"):
                rows = part.needed(part_drawn, rows)
        return rows.sort().values

    def apply(self, batch: Batch, drawn: list[Any], rows: Tensor | None = None, mix: bool = True) -> Batch:
        """Augment a batch.

        Args:
            batch: The global batch, or some rows of it.
            drawn: From :meth:`draw`, for the global batch.
            rows: int64 (R,), the rows of the global batch that ``batch`` has; None for all.
            mix: False omits augmentations that change targets, such as CutMix.
        """
        count = len(batch)
        for part, part_drawn in zip(self.parts.values(), drawn, strict=True):
            selected = part_drawn if rows is None else part.select(part_drawn, rows)  # type: ignore[attr-defined]
            before, batch = batch, part.apply(batch, selected)
            if not mix and not torch.equal(before.targets, batch.targets):
                batch = before
            if len(batch) != count or len(batch.images) != count or batch.images.dtype != torch.uint8:
                raise InputError(
                    f"{type(part).__name__}.apply returned {len(batch.images)} images of {batch.images.dtype} and"
                    f" {len(batch)} targets; expected {count} of torch.uint8 and {count}."
                )
        return batch
