"""The classifiers: networks by name, exact KNN, image statistics."""

from deepfake_cls.models import resnet, texturenet, timm
from deepfake_cls.models.registry import build, network

__all__ = ["build", "network", "resnet", "texturenet", "timm"]
