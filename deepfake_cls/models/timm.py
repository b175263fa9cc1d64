"""The architectures of timm, by default with random weights: ``model=timm model.args.architecture=NAME``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepfake_cls.errors import InputError, reason
from deepfake_cls.models.registry import network


@network("timm")
class TimmNet(nn.Module):
    """An architecture of timm with this project's interface.

    Args:
        in_channels: 3 (RGB) or 4 (RGBA).
        num_classes: Number of classes.
        architecture: A name that ``timm.create_model`` takes.
        dropout: Probability of dropping a feature before the classifier.
        pretrained: Start from the weights that timm downloads.

    Raises:
        InputError: If timm is not installed, has no such architecture, or cannot download its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, in_channels: int, num_classes: int, architecture: str, dropout: float = 0.0, pretrained: bool = False
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise InputError("model.name=timm: needs timm; run pip install 'deepfake-cls[timm]'.") from error
        if architecture not in timm.list_models():
            similar = ", ".join(timm.list_models(f"*{architecture}*")[:5]) or "timm.list_models() lists all"
            raise InputError(f"model.args.architecture={architecture}: timm has no such architecture ({similar}).")
        try:
            self.body = timm.create_model(
                architecture, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes, drop_rate=dropout
            )
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise InputError(
                f"model.args.pretrained=true: the weights of {architecture} cannot be downloaded"
                f" ({reason(error)}); use model.args.pretrained=false."
            ) from error
        # Pixels are scaled to -1 to 1; with pretrained weights, R, G and B are normalised as in their training.
        means, stds = [0.5] * in_channels, [0.5] * in_channels
        if pretrained:
            config: Any = self.body.pretrained_cfg
            means[:3], stds[:3] = config["mean"], config["std"]
        self.register_buffer("mean", 255 * torch.tensor(means).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(stds).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (B, C, H, W) to logits (B, num_classes)."""
        logits: Tensor = self.body((images.to(self.mean.dtype) - self.mean) / self.std)
        return logits
