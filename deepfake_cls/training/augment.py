"""Augmentation of whole batches: random parameters first, then pure functions of a batch and its parameters.

Images are uint8 (B, H, W, C), as they lie in the store; a batch is augmented where it is, on any device.

An augmentation is a class, registered with ``@augmentation("name")``, whose fields are its strengths:

- ``draw(rng, batch, progress)`` returns all that is random about a batch. ``rng`` is a ``torch.Generator`` of this
  step and this augmentation; ``progress`` is the share of the training that is done, 0 to 1. The batch's images are on
  the ``meta`` device: they have a shape and no pixels.
- ``apply(batch, drawn)`` returns the augmented batch.

Two optional methods let each of many processes work on its own images alone: ``select(drawn, rows)`` returns what was
drawn for these rows of the batch, as if the batch had no others, and ``needed(drawn, rows)`` returns the rows whose
pixels the result for ``rows`` depends on. Where one augmentation lacks ``select``, each process augments the whole
batch.
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
from deepfake_cls.registry import Registry
from deepfake_cls.schema import check, number, one_of


@dataclass(frozen=True)
class Batch:
    """What augmentations work on.

    Attributes:
        images: uint8 (B, H, W, C).
        targets: float64 (B, classes), a probability for each class; in float64, so that mixing loses nothing.
        indices: int64 (B,), the place of each image in its split.
        image_features: float32 (B, E), of the unaugmented images; None where the network has none.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    image_features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, rows: Tensor) -> Batch:
        """Some rows of the batch: int64 (R,)."""
        where = to_device(rows, self.images.device)
        features = None if self.image_features is None else self.image_features[where]
        return Batch(self.images[where], self.targets[where], self.indices[rows], features)


class Augmentation(Protocol):
    """See the module's description; ``select`` and ``needed`` are optional."""

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Any:
        """All that is random about a batch."""

    def apply(self, batch: Batch, drawn: Any) -> Batch:
        """The augmented batch."""


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
        """Mirror the chosen images."""
        return replace(batch, images=flip(batch.images, drawn))

    def select(self, drawn: Tensor, rows: Tensor) -> Tensor:
        """What was drawn for some rows."""
        return drawn[rows]


@augmentation("rotation")
@dataclass(frozen=True)
class Rotation:
    """Rotate images about their centre, with the nearest neighbour; empty corners are 0.

    Attributes:
        degrees: Largest angle, either way.
        fill_alpha: What a corner holds in the alpha plane: ``mask`` (0) or ``constant`` (255).
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
        """What was drawn for some rows."""
        return drawn[rows]


@dataclass(frozen=True)
class Mix:
    """One CutMix of a batch.

    Attributes:
        box: (top, bottom, left, right) in pixels, after clipping; rows top to bottom−1 are replaced.
        partner: int64 (B,), the image from which each image takes its box.
        weight: λ after clipping: the share of pixels, and so of the label, that stays the image's own.
    """

    box: tuple[int, int, int, int]
    partner: Tensor
    weight: float


@augmentation("cutmix")
@dataclass(frozen=True)
class CutMix:
    """Replace a box of each image by the same box of another image (Yun et al. 2019); one box for a batch.

    λ ~ Beta(alpha, alpha); the box has sides √(1−λ) of the image's and a uniform centre, is clipped to the image, and λ
    is computed again from the clipped box (Yun et al. 2019; the paper's code).

    Attributes:
        p: Share of batches that are mixed.
        alpha: Both parameters of the Beta distribution.
    """

    p: float = number(least=0, most=1, expected="a probability")
    alpha: float = number(above=0)

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Mix | None:
        """A box and a partner for each image; None for a batch that is left alone."""
        # Everything is drawn whether or not the batch is mixed: one decision then never shifts a later draw.
        mixed = bool(torch.rand((), generator=rng) < self.p)
        own = _beta(self.alpha, rng)
        centre = torch.rand(2, generator=rng, dtype=torch.float64)
        partner = torch.randperm(len(batch), generator=rng)
        if not mixed:
            return None
        height, width = batch.images.shape[1:3]
        side = (1.0 - own) ** 0.5
        cut_height, cut_width = int(height * side), int(width * side)
        row, column = int(centre[0] * height), int(centre[1] * width)
        top, bottom = max(row - cut_height // 2, 0), min(row + cut_height // 2, height)
        left, right = max(column - cut_width // 2, 0), min(column + cut_width // 2, width)
        weight = 1.0 - (bottom - top) * (right - left) / (height * width)
        return Mix((top, bottom, left, right), partner, weight)

    def apply(self, batch: Batch, drawn: Mix | None) -> Batch:
        """Put each partner's box into each image, and mix targets and image features by λ."""
        if drawn is None:
            return batch
        top, bottom, left, right = drawn.box
        partner = to_device(drawn.partner, batch.images.device)
        images = batch.images.clone()
        images[:, top:bottom, left:right] = batch.images[partner, top:bottom, left:right]

        def mixed(values: Tensor) -> Tensor:
            return drawn.weight * values + (1.0 - drawn.weight) * values[partner]

        features = batch.image_features
        return replace(
            batch,
            images=images,
            targets=mixed(batch.targets),
            image_features=None if features is None else mixed(features),
        )

    def select(self, drawn: Mix | None, rows: Tensor) -> Mix | None:
        """What was drawn for some rows; a partner that is not among them is replaced by the image itself."""
        if drawn is None:
            return None
        place = torch.full((len(drawn.partner),), -1)
        place[rows] = torch.arange(len(rows))
        partner = place[drawn.partner[rows]]
        return replace(drawn, partner=torch.where(partner < 0, torch.arange(len(rows)), partner))

    def needed(self, drawn: Mix | None, rows: Tensor) -> Tensor:
        """The rows and their partners."""
        return rows if drawn is None else torch.unique(torch.cat([rows, drawn.partner[rows]]))


def _beta(alpha: float, rng: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), as a ratio of two from Gamma(alpha)."""
    # Distributions of torch draw from the global generator alone, so it lends its state for this draw.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.get_state())
        gammas = torch.distributions.Gamma(torch.full((2,), alpha, dtype=torch.float64), 1.0).sample()
        rng.set_state(torch.get_rng_state())
    return float(gammas[0] / gammas.sum())


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the chosen images left to right: uint8 (B, H, W, C), bool (B,)."""
    # On a CPU several times as fast as torch.where over a mask that is the same for a whole image.
    count = len(images)
    rows = torch.arange(count, device=images.device) + count * to_device(flipped, images.device)
    return torch.cat([images, images.flip(2)]).index_select(0, rows)


def rotate(images: Tensor, degrees: Tensor, fill: Tensor) -> Tensor:
    """Rotate each image about its centre by its own angle, with the nearest neighbour, in one gather.

    It follows torchvision's ``rotate(interpolation=NEAREST, expand=False)`` on tensors, which takes one angle for all
    images: positive angles turn counter-clockwise, and pixels from outside the image take ``fill``.

    Args:
        images: uint8 (B, H, W, C).
        degrees: float32 (B,).
        fill: uint8 (C,), the value of empty corners.

    Returns:
        uint8 (B, H, W, C).
    """
    count, height, width, channels = images.shape
    device = images.device
    angle = torch.deg2rad(to_device(degrees, device).float())[:, None, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    y = (torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2)[None, :, None]
    x = (torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2)[None, None, :]
    column = (cos * x - sin * y).add_((width - 1) / 2).round_()  # (B, H, W)
    row = (sin * x + cos * y).add_((height - 1) / 2).round_()
    # Each image lies in a frame of the fill, so that a corner is a place to read from. int32 halves the traffic of
    # places; a batch has far fewer than 2³¹ pixels.
    framed = images.new_empty((count, height + 2, width + 2, channels))
    framed[:, 1:-1, 1:-1] = images
    corner = to_device(fill, device)
    framed[:, 0], framed[:, -1], framed[:, :, 0], framed[:, :, -1] = corner, corner, corner, corner
    first = torch.arange(count, device=device) * ((height + 2) * (width + 2)) + (width + 3)  # where (0, 0) lies
    pixel = row.clamp_(-1, height).to(torch.int32).mul_(width + 2)
    pixel.add_(column.clamp_(-1, width).to(torch.int32)).add_(first.to(torch.int32)[:, None, None])
    pixels = framed.view(-1, channels)
    if channels == 4:
        pixels = pixels.view(torch.int32)  # one word a pixel is read 2.5 times as fast as four bytes
    taken = pixels.index_select(0, pixel.view(-1)).view(torch.uint8)
    return taken.view(count, height, width, channels)


def _built(name: str, strengths: Mapping[str, Any]) -> Augmentation:
    """The augmentation of that name.

    Raises:
        InputError: If there is none, or it does not take the strengths.
    """
    part = augmentation[name]
    known = inspect.signature(part).parameters
    if not isinstance(strengths, Mapping):
        raise InputError(f"augment.{name}={strengths}: expected strengths, such as {{p: 0.5}}, or null.")
    for key in strengths:
        if key not in known:
            raise InputError(f"augment.{name}.{key}: unknown; {name} takes {', '.join(known) or 'no strengths'}.")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in strengths:
            raise InputError(f"augment.{name}.{key}: missing; give it, as in augment.{name}.{key}=VALUE.")
    built = part(**strengths)
    if is_dataclass(built):
        check(built, f"augment.{name}.")
    return built


class Pipeline:
    """The augmentations of a training, in order.

    Args:
        augment: Strengths by name; an augmentation without strengths (None) is left out.
        seed: Every draw follows from it, the augmentation's name, the epoch and the step.

    Raises:
        InputError: If a name or a strength is unknown, or a value is out of range.
    """

    def __init__(self, augment: Mapping[str, Mapping[str, Any] | None], seed: int) -> None:
        self.seed = seed
        for name in augment:
            augmentation[name]  # what is removed has to exist as well
        self.parts = {name: _built(name, strengths) for name, strengths in augment.items() if strengths is not None}
        self.partial = all(hasattr(part, "select") for part in self.parts.values())

    def draw(self, batch: Batch, epoch: int, step: int, progress: float) -> list[Any]:
        """What each augmentation draws for a batch.

        Args:
            batch: The global batch; its pixels are not looked at.
            epoch: From 0.
            step: Batch within the epoch, from 0.
            progress: Share of the training that is done, 0 to 1.
        """
        shape = (len(batch), *batch.images.shape[1:])
        shapes = replace(batch, images=torch.empty(shape, dtype=torch.uint8, device="meta"))
        return [
            part.draw(generator(self.seed, name, epoch, step), shapes, progress) for name, part in self.parts.items()
        ]

    def needed(self, drawn: list[Any], rows: Tensor) -> Tensor | None:
        """Rows of the batch whose pixels the result for some rows depends on, ascending; None stands for all.

        Args:
            drawn: From :meth:`draw`.
            rows: int64 (R,).
        """
        if not self.partial:
            return None
        for part, own in reversed(list(zip(self.parts.values(), drawn, strict=True))):
            if hasattr(part, "needed"):
                rows = part.needed(own, rows)
        return rows.sort().values

    def apply(self, batch: Batch, drawn: list[Any], rows: Tensor | None = None) -> Batch:
        """The augmented batch.

        Args:
            batch: The batch, or some rows of it.
            drawn: From :meth:`draw`, for the global batch.
            rows: int64 (R,), which rows of the global batch these are; None stands for all.
        """
        for part, own in zip(self.parts.values(), drawn, strict=True):
            chosen = own if rows is None else part.select(own, rows)  # type: ignore[attr-defined]
            count = len(batch)
            batch = part.apply(batch, chosen)
            if len(batch) != count or len(batch.images) != count or batch.images.dtype != torch.uint8:
                raise InputError(
                    f"{type(part).__name__}.apply returned {len(batch.images)} images of {batch.images.dtype} and"
                    f" {len(batch)} targets; expected {count} of torch.uint8 and {count}."
                )
        return batch
