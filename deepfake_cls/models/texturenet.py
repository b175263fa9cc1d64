"""A plain convolutional network whose head sees the texture of all stages and statistics of the pixels.

The generators of one data set draw the same scenes, so what tells them apart is texture: its mean and its variation at
each scale. So the head gets the mean and the logarithm of the standard deviation of every stage's output, where the
paper's network gets the mean of the last one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deepfake_cls.errors import InputError
from deepfake_cls.models.image_statistics import GROUPS, group_slices, image_statistics
from deepfake_cls.models.registry import network

STAGES = ((2, 1), (4, 2), (8, 2), (12, 2))  # channels as multiples of the width, convolutions
HIDDEN = 128
SMALLEST = 8  # height and width of an image: three times halved, one pixel is left
BRANCH = 64  # outputs of the branch of pixel statistics
BRANCH_DROPOUT = 0.5
LARGEST = 5.0  # standardised statistics are clipped to ±5
_EPSILON = 1e-4


class Stage(nn.Sequential):
    """3×3 convolutions with batch normalisation and ReLU: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, convolutions: int) -> None:
        layers: list[nn.Module] = []
        for before in [in_channels] + [out_channels] * (convolutions - 1):
            layers.append(nn.Conv2d(before, out_channels, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class PixelStatistics(nn.Module):
    """The branch of pixel statistics: standardise, clip, one dense layer with ReLU and dropout.

    Mean and standard deviation are those of the training images.

    Args:
        groups: Groups of :func:`image_statistics`.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__()
        count = max(part.stop for part in group_slices(groups).values())
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("sd", torch.ones(count))
        self.dense = nn.Linear(count, BRANCH)
        self.dropout = nn.Dropout(BRANCH_DROPOUT)

    def forward(self, statistics: Tensor) -> Tensor:
        """Map statistics, float32 (B, E), to (B, 64)."""
        standardised = ((statistics - self.mean) / self.sd).clamp(-LARGEST, LARGEST)
        dropped: Tensor = self.dropout(F.relu(self.dense(standardised)))
        return dropped

    def fit(self, statistics: Tensor) -> None:
        """Set mean and standard deviation from all training images, float32 (N, E)."""
        self.mean.copy_(statistics.mean(dim=0))
        # A statistic that does not vary on the training images is 0 there, and clipped elsewhere.
        self.sd.copy_(statistics.std(dim=0, correction=0).clamp(min=1e-6))


@network("texturenet")
class TextureNet(nn.Module):
    """Four stages without skips (VGG: Simonyan and Zisserman 2014), a head on the moments of all stages.

    At width 16, with 3 channels and 5 classes, it has 1,012,389 parameters. Images must have 8×8 pixels or more.

    Args:
        in_channels: 3 (RGB) or 4 (RGBA).
        num_classes: Number of classes.
        width: Stages have 2, 4, 8 and 12 times as many channels.
        dropout: Probability of dropping a hidden unit of the head.
        moments: Mean and log standard deviation of every stage; false: the mean of the last stage.
        statistics: Groups of :func:`image_statistics`, of the unaugmented images, for the branch of pixel statistics;
            an empty list omits the branch.

    Raises:
        InputError: If a group is unknown or listed twice; in ``forward``, if the images are too small.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        dropout: float = 0.3,
        moments: bool = True,
        statistics: Sequence[str] = GROUPS,
    ) -> None:
        super().__init__()
        channels = [in_channels, *(factor * width for factor, _ in STAGES)]
        self.stages = nn.ModuleList(
            Stage(before, after, convolutions)
            for (before, after), (_, convolutions) in zip(itertools.pairwise(channels), STAGES, strict=True)
        )
        self.moments = moments
        pooled = 2 * sum(channels[1:]) if moments else channels[-1]
        self.norm = nn.BatchNorm1d(pooled) if moments else None
        self.branch: PixelStatistics | None = None
        self.groups = statistics
        if not isinstance(statistics, Sequence) or isinstance(statistics, str) or not {*statistics} <= {*GROUPS}:
            raise InputError(f"model.args.statistics={statistics}: expected a list of {', '.join(GROUPS)}, or [].")
        if len({*statistics}) < len(statistics):
            raise InputError(f"model.args.statistics={statistics}: lists a group twice.")
        if statistics:
            self.branch = PixelStatistics(statistics)
            self.image_features = self._statistics
            self.fit_image_features = self.branch.fit
            pooled += BRANCH
        self.fc1 = nn.Linear(pooled, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(HIDDEN, num_classes)
        self.to(memory_format=torch.channels_last)

    def _statistics(self, images: Tensor) -> Tensor:
        return image_statistics(images, self.groups)

    def forward(self, images: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Map images to logits; the network itself normalises pixels from 0…255 to −1…1.

        Args:
            images: uint8 (B, C, H, W), any memory layout.
            image_features: float32 (B, E), the statistics of the images before augmentation; None computes those of
                ``images``.

        Returns:
            Logits (B, num_classes), float32 or float64.
        """
        if min(images.shape[2:]) < SMALLEST:
            height, width = images.shape[2:]
            raise InputError(
                f"model.name=texturenet: the images are of [{height},{width}] pixels; it needs {SMALLEST} or more in"
                " each direction."
            )
        dtype = self.fc1.weight.dtype
        x = images.to(dtype, memory_format=torch.channels_last, copy=True).div_(127.5).sub_(1.0)
        pooled = []
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else F.max_pool2d(x, 2))
            if self.moments:
                pooled += _moments(x)
        with torch.autocast(images.device.type, enabled=False):  # the head is small, and logits need the precision
            if self.norm is not None:
                inputs = [self._normalised(torch.cat(pooled, dim=1).to(dtype), self.norm)]
            else:
                inputs = [x.to(dtype).mean(dim=(2, 3))]
            if self.branch is not None:
                statistics = self._statistics(images) if image_features is None else image_features
                inputs.append(self.branch(statistics.to(dtype)))
            logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(torch.cat(inputs, dim=1)))))
        return logits

    @staticmethod
    def _normalised(moments: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        if norm.training and len(moments) < 2:  # no variance: a last batch, or a process's share of it, may be so small
            return F.batch_norm(moments, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        normalised: Tensor = norm(moments)
        return normalised


class Moments(torch.autograd.Function):
    """Mean and variance over the pixels of each map: (B, C, H, W) to two of (B, C), float32 or float64.

    ``torch.var_mean`` takes four times as long, forward and backward, for channels-last maps on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """The variance is E[x²] − E[x]²; after ReLU, mean and deviation are of one order of magnitude."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean = x.mean(dim=(2, 3), dtype=dtype)
        norm = torch.linalg.vector_norm(x, dim=(2, 3), dtype=dtype)
        ctx.save_for_backward(x, mean)
        return mean, (norm.square() / x.shape[2:].numel() - mean.square()).clamp(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
        """d(variance)/dx = 2 (x − mean) / pixels."""
        x, mean = ctx.saved_tensors
        scale = 2 * grad_variance / x.shape[2:].numel()
        offset = grad_mean / x.shape[2:].numel() - scale * mean
        return torch.addcmul(offset.to(x.dtype)[..., None, None], x, scale.to(x.dtype)[..., None, None])


def _moments(x: Tensor) -> list[Tensor]:
    """Mean and logarithm of the standard deviation over the pixels: (B, C, H, W) to two of (B, C)."""
    mean, variance = Moments.apply(x)
    return [mean, 0.5 * (variance + _EPSILON).log()]
