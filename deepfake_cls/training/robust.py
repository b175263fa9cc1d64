"""Augmentations against the shortcut of file formats: re-encoding by real codecs, and a small blur."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from deepfake_cls.data.build import cores
from deepfake_cls.data.decode import encode_again
from deepfake_cls.randomness import to_device
from deepfake_cls.schema import number
from deepfake_cls.training.augment import Batch, augmentation

FORMATS = ("JPEG", "WEBP")


class Encodings(NamedTuple):
    """How images are encoded.

    Attributes:
        chosen: Which images are encoded: bool (B,).
        formats: Index in ``FORMATS``: int64 (B,).
        qualities: int64 (B,).
    """

    chosen: Tensor
    formats: Tensor
    qualities: Tensor


@augmentation("reencode")
@dataclass(frozen=True)
class Reencode:
    """Encode images as JPEG or WebP of random quality, and decode them again; alpha stays as it is.

    The codecs are Pillow's, on the CPU, in one thread for each core.

    Attributes:
        p: Probability for each image.
        lowest: Lowest quality; qualities are uniform up to 100.
    """

    p: float = number(least=0, most=1, expected="a probability")
    lowest: int = number(50, least=1, most=100, expected="a quality, 1 to 100")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Encodings:
        """Draw format and quality, both uniform."""
        chosen = torch.rand(len(batch), generator=rng) < self.p
        formats = torch.randint(len(FORMATS), (len(batch),), generator=rng)
        return Encodings(chosen, formats, torch.randint(self.lowest, 101, (len(batch),), generator=rng))

    def apply(self, batch: Batch, drawn: Encodings) -> Batch:
        """Encode the chosen images."""
        rows = drawn.chosen.nonzero().flatten()
        if not len(rows):
            return batch
        device_rows = to_device(rows, batch.images.device)
        pixels: NDArray[np.uint8] = batch.images[device_rows].cpu().numpy()
        formats = [FORMATS[index] for index in drawn.formats[rows].tolist()]
        # Pillow releases the GIL. A pool that outlives the call would hang in a forked process.
        with ThreadPoolExecutor(cores()) as pool:
            encoded = np.stack([*pool.map(encode_again, pixels, formats, drawn.qualities[rows].tolist())])
        images = batch.images.clone()
        images[device_rows] = to_device(torch.from_numpy(encoded), images.device)
        return replace(batch, images=images)

    def select(self, drawn: Encodings, rows: Tensor) -> Encodings:
        """The encodings of some rows."""
        return Encodings(*(values[rows] for values in drawn))


@augmentation("blur")
@dataclass(frozen=True)
class Blur:
    """Blur images by a small Gaussian, with one standard deviation for a batch; alpha stays as it is.

    Attributes:
        p: Probability for each image.
        sigma: Largest standard deviation in pixels; it is uniform from 0.1 up.
    """

    p: float = number(least=0, most=1, expected="a probability")
    sigma: float = number(1.0, least=0.1, most=10, expected="0.1 to 10 pixels")

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> tuple[Tensor, float]:
        """Which images are blurred, bool (B,), and the standard deviation."""
        chosen = torch.rand(len(batch), generator=rng) < self.p
        return chosen, 0.1 + (self.sigma - 0.1) * float(torch.rand((), generator=rng, dtype=torch.float64))

    def apply(self, batch: Batch, drawn: tuple[Tensor, float]) -> Batch:
        """Blur the chosen images; the kernel reaches three standard deviations, and edges are reflected."""
        chosen, sigma = drawn
        rows = to_device(chosen.nonzero().flatten(), batch.images.device)
        if not len(rows):
            return batch
        reach = min(int(np.ceil(3 * sigma)), min(batch.images.shape[1:3]) - 1)  # reflection reaches no further
        images = batch.images.clone()
        pixels = images[rows][..., :3].permute(0, 3, 1, 2)
        images[rows, :, :, :3] = gaussian_blur(pixels, [2 * reach + 1] * 2, [sigma, sigma]).permute(0, 2, 3, 1)
        return replace(batch, images=images)

    def select(self, drawn: tuple[Tensor, float], rows: Tensor) -> tuple[Tensor, float]:
        """The part of some rows."""
        return drawn[0][rows], drawn[1]
