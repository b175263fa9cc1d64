"""The paper's residual network, in plain torch.

Source: the paper's table 2 (layers) and its author's code (order inside a block, no bias before batch normalisation,
batch normalisation on the skip). The table gives 12×12 for the last stage, but a 3×3 convolution of stride 2 and
padding 1 maps 25×25 to 13×13.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepfake_cls.models.registry import network
from deepfake_cls.randomness import generator


class ResidualBlock(nn.Module):
    """conv, BN, ReLU, conv, BN, add, ReLU (He et al. 2016), with a 1×1 convolution as skip where shapes differ.

    ``stride`` is that of the first convolution and of the skip. ``skips=False`` omits the skip, to test the paper's
    claim about it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, skips: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.skip: nn.Module | None = nn.Identity() if skips else None
        self.subsampling = 1
        if skips and (stride != 1 or in_channels != out_channels):
            # The weight gradient of a strided 1×1 convolution writes past its workspace in oneDNN's channels-last
            # kernels when the input channels do not fill a SIMD block: 8 channels on AVX2, 16 on AVX-512
            # (github.com/uxlfoundation/oneDNN/issues/6035). There the input is subsampled before the convolution.
            self.subsampling = stride if in_channels % 16 else 1
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride // self.subsampling, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.skip is not None:
            # Pooling with kernel 1 takes every stride-th pixel and, unlike a slice, keeps the memory layout.
            y += self.skip(F.avg_pool2d(x, 1, self.subsampling) if self.subsampling > 1 else x)
        return F.relu(y, inplace=True)


@network("resnet")
class ResidualNet(nn.Module):
    """The paper's classifier: a stem, three stages of two blocks, global average pooling, two dense layers.

    At width 64, with 4 channels and 5 classes, it has 11,087,749 parameters. Images must have 8×8 pixels or more.

    Args:
        in_channels: 3 (RGB) or 4 (RGBA).
        num_classes: Number of classes.
        width: Channels of the stem; stages have 2, 4 and 8 times as many, the hidden dense layer 2 times.
        dropout: Probability of dropping a hidden unit of the head.
        skips: False omits the residual connections.
    """

    def __init__(
        self, in_channels: int, num_classes: int, width: int = 64, dropout: float = 0.3, skips: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(ResidualBlock(before, after, 2, skips), ResidualBlock(after, after, 1, skips))
                for before, after in itertools.pairwise(sizes)
            )
        )
        self.fc1 = nn.Linear(8 * width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(2 * width, num_classes)
        self.layout = torch.channels_last  # faster than the contiguous layout on CPU and GPU
        self.to(memory_format=self.layout)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits; the network itself normalises pixels from 0…255 to −1…1.

        Args:
            images: uint8 (B, C, H, W), any memory layout.

        Returns:
            Logits (B, num_classes).
        """
        x = images.to(self.fc1.weight.dtype, memory_format=self.layout, copy=True).div_(127.5).sub_(1.0)
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        x = self.stages(x).mean(dim=(2, 3))
        logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return logits

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw the initial weights, each parameter from its own generator.

        Weights and biases are uniform in ±1/√fan_in (torch's default, and the paper's); batch normalisation keeps its
        1 and 0. The stem's RGB weights are drawn first, with the fan-in of 3 channels. So RGB and RGBA networks of
        one seed differ only in the weights of the alpha channel.
        """
        for name, module in self.named_modules():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            fan_in = 27 if name == "conv" else module.weight[0].numel()
            bound = 1.0 / math.sqrt(fan_in)
            rng = generator(seed, "weights", name)
            parts = [module.weight[:, :3], module.weight[:, 3:]] if name == "conv" else [module.weight]
            uniform = torch.cat([torch.rand(part.shape, generator=rng) for part in parts], dim=1)
            module.weight.copy_(uniform.mul_(2 * bound).sub_(bound))
            if module.bias is not None:
                uniform = torch.rand(module.bias.shape, generator=generator(seed, "bias", name))
                module.bias.copy_(uniform.mul_(2 * bound).sub_(bound))
