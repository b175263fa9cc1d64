"""The baselines: the same recipe in plain PyTorch and in plain Lightning, as it is usually written.

The workers of a DataLoader open PNG files and augment image by image with torchvision. Training is eager, in float32,
with contiguous tensors. Network, loss, optimiser and schedule are those of this project.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import Stopwatch
from deepfake_cls.models.resnet import ResidualNet

LR, WEIGHT_DECAY, SMOOTHING = 2e-3, 1e-4, 0.1


class PlainNet(ResidualNet):
    """The same network for normalised float32 images (B, C, H, W) in contiguous layout."""

    def __init__(self, in_channels: int, num_classes: int, width: int, dropout: float = 0.3) -> None:
        super().__init__(in_channels, num_classes, width, dropout)
        self.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        x = F.relu(self.bn(self.conv(images)))
        x = self.stages(x).mean(dim=(2, 3))
        logits: Tensor = self.fc2(self.dropout(F.relu(self.fc1(x))))
        return logits


class PngFolder(Dataset[tuple[Tensor, int]]):
    """The images ``<label>/<name>.png`` of a folder.

    Args:
        folder: The folder of a split.
        augmented: Whether to flip and rotate.
    """

    def __init__(self, folder: Path, augmented: bool) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        files = [(path, label) for label, name in enumerate(self.classes) for path in (folder / name).glob("*.png")]
        self.files = sorted(files)
        augmentation = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(10)] if augmented else []
        normalise = transforms.Normalize([0.5] * 3, [0.5] * 3)
        self.transform = transforms.Compose([*augmentation, transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def train_loader(folder: str, batch: int, workers: int, pinned: bool = False) -> DataLoader[tuple[Tensor, int]]:
    """The shuffled and augmented training images."""
    images = PngFolder(Path(folder) / "train", augmented=True)
    return DataLoader(
        images, batch, shuffle=True, num_workers=workers, pin_memory=pinned, persistent_workers=workers > 0
    )


def cutmix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
    """Apply CutMix to half of the batches.

    Returns:
        Images, labels of the partners, and the weight of the images' own labels.
    """
    if np.random.rand() >= 0.5:  # noqa: NPY002 - as it is usually written
        return images, labels, 1.0
    height, width = images.shape[2:]
    side = np.sqrt(1 - np.random.beta(1.0, 1.0))  # noqa: NPY002
    row, column = np.random.randint(height), np.random.randint(width)  # noqa: NPY002
    top, bottom = np.clip([row - int(height * side) // 2, row + int(height * side) // 2], 0, height)
    left, right = np.clip([column - int(width * side) // 2, column + int(width * side) // 2], 0, width)
    partner = torch.randperm(len(images), device=images.device)
    images[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return images, labels[partner], 1.0 - float((bottom - top) * (right - left)) / (height * width)


def mixed_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The loss of a training batch with CutMix and label smoothing."""
    images, others, weight = cutmix(images, labels)
    logits = network(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    other = F.cross_entropy(logits, others, label_smoothing=SMOOTHING)
    return weight * loss + (1.0 - weight) * other


def optimiser_of(network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and OneCycleLR for a training of at least 1,000 steps, of which only the first are made."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=max(steps, 1000), pct_start=0.1)
    return optimiser, schedule


def train(
    folder: str, width: int, batch: int, skip: int, steps: int, workers: int = 2, device: str = "cpu"
) -> dict[str, float]:
    """Train with a plain PyTorch loop.

    Args:
        folder: Output of :func:`samples.write_pngs`.
        width: Channels of the stem.
        batch: Images per batch.
        skip: Warm-up steps.
        steps: Total steps, over as many epochs as needed.
        workers: Workers of the DataLoader.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``rate`` (images per second), ``first_step`` (seconds since the process started) and ``loss`` (mean).
    """
    loader = train_loader(folder, batch, workers, pinned=device == "cuda")
    classes = len(loader.dataset.classes)  # type: ignore[attr-defined]
    network = PlainNet(3, classes, width).to(device)
    optimiser, schedule = optimiser_of(network, steps)
    watch = Stopwatch(skip, steps, torch.cuda.synchronize if device == "cuda" else lambda: None)
    running = 0.0
    while watch.done < steps:
        network.train()
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimiser.zero_grad()
            loss = mixed_loss(network, images, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            running += loss.item()
            watch.step(len(labels))
            if watch.done == steps:
                break
    return {"rate": watch.rate, "first_step": watch.first_step, "loss": running / steps}


def train_lightning(folder: str, width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Train with a minimal LightningModule and Trainer; arguments and result as in :func:`train`."""
    import lightning as L

    loader = train_loader(folder, batch, workers=2)
    classes = len(loader.dataset.classes)  # type: ignore[attr-defined]
    watch = Stopwatch(skip, steps)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = PlainNet(3, classes, width)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return mixed_loss(self.network, *batch)

        def configure_optimizers(self) -> Any:
            optimiser, schedule = optimiser_of(self.network, steps)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            watch.step(len(batch[1]))

    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(Module(), loader)
    return {"rate": watch.rate, "first_step": watch.first_step}


def load(folder: str, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Time the training DataLoader with two workers; arguments and ``rate`` as in :func:`train`."""
    watch = Stopwatch(skip, steps)
    loader = train_loader(folder, batch, workers=2)
    for _, labels in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        watch.step(len(labels))
    return {"rate": watch.rate}


@torch.no_grad()
def evaluate(folder: str, width: int, batch: int, skip: int, steps: int) -> dict[str, float]:
    """Time class probabilities of validation images with two workers; arguments and ``rate`` as in :func:`train`."""
    images = PngFolder(Path(folder) / "validation", augmented=False)
    loader = DataLoader(images, batch, num_workers=2)
    network = PlainNet(3, len(images.classes), width).eval()
    watch = Stopwatch(skip, steps)
    for x, labels in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        network(x).softmax(dim=1)
        watch.step(len(labels))
    return {"rate": watch.rate}
