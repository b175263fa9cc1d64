"""Typed configuration: the schema of every key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataConfig:
    """What every data set shares.

    Attributes:
        name: ``synthetic``, ``unibuc`` or ``folder``; the layout.
        cache: Folder for decoded images; None is the user's cache folder.
        workers: Threads that decode, or processes that draw, images; None is one for each core.
        verify: Check the cached images against their SHA-256 before use.
    """

    name: str = "synthetic"
    cache: str | None = None
    workers: int | None = None
    verify: bool = False


@dataclass
class SyntheticConfig(DataConfig):
    """The embedded data set (``data=synthetic``).

    Attributes:
        seed: Seed of content and traces; together with class and index it determines an image.
        train_size: Images in the training split, all classes together.
        validation_size: The same for the validation split.
        test_size: The same for the test split, whose labels are withheld.
        strength: Factor on every trace; 0 makes the classes equal.
        alpha: ``none``, ``constant``, ``mask`` or ``informative``.
        image_size: Side of an image in pixels, 16 to 100; smaller images cost less to train on.
    """

    seed: int = 0
    train_size: int = 2500
    validation_size: int = 1000
    test_size: int = 250
    strength: float = 1.0
    alpha: str = "none"
    image_size: int = 100


@dataclass
class ImageFilesConfig(DataConfig):
    """Image files on disk (``data=unibuc`` and ``data=folder``).

    Attributes:
        root: The folder that holds the data.
        size: Height and width of an image; None takes the first image's.
        resize: Resize images of another size, instead of refusing them.
        on_error: ``raise``, or ``skip`` to set bad files aside in a list and go on.
        val_fraction: Share of the training split that becomes validation where there is none.
        val_seed: Seed of that cut, and of the folds.
        fold: Hold out this fold, from 0, as the validation split; None keeps the splits as they are.
        fold_of: What is cut into folds. ``train`` is the training split alone: the data's own validation split is not
            used, so that a recipe tuned on folds has never seen it. ``all`` is train and validation together.
        folds: Number of folds.
    """

    root: str = "???"
    size: list[int] | None = None
    resize: bool = False
    on_error: str = "raise"
    val_fraction: float = 0.1
    val_seed: int = 0
    fold: int | None = None
    fold_of: str = "train"
    folds: int = 10


@dataclass
class UnibucConfig(ImageFilesConfig):
    """CSV tables and a folder of images for each split (``data=unibuc``)."""

    name: str = "unibuc"


@dataclass
class FolderConfig(ImageFilesConfig):
    """``split/class/*`` (``data=folder``)."""

    name: str = "folder"


@dataclass
class RecipeConfig:
    """How the network is trained; the defaults are the report's.

    Attributes:
        flip: Probability of a horizontal flip.
        rotation: Largest rotation in degrees, either way.
        alpha_fill: What a rotated corner holds in the alpha plane: ``mask`` (0) or ``constant`` (255).
        cutmix: Share of batches that are mixed.
        cutmix_alpha: Both parameters of the Beta distribution of λ.
        label_smoothing: Label smoothing of the cross-entropy.
        weight_decay: Decoupled weight decay of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        skips: Residual connections; without them the network is a plain stack of the same convolutions.
    """

    flip: float = 0.5
    rotation: float = 10.0
    alpha_fill: str = "mask"
    cutmix: float = 0.5
    cutmix_alpha: float = 1.0
    label_smoothing: float = 0.1
    weight_decay: float = 1e-4
    warmup: float = 0.1
    skips: bool = True


@dataclass
class TrainerConfig:
    """Where and how arithmetic runs; chosen for the hardware where ``auto``.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``32-true`` or ``bf16-mixed``.
        threads: CPU threads; None keeps torch's choice.
        deterministic: Deterministic kernels on a GPU, for bit equality.
        compile: Fuse the network's operations with torch.compile: faster steps after a slow first one.
        progress: Show progress bars.
        curve_images: Validation images, drawn once, that score each epoch for the learning curve and the best epoch;
            None takes all. The result at the end is always taken on all.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    compile: bool = False
    progress: bool = True
    curve_images: int | None = None


@dataclass
class TrainConfig:
    """``python -m deepfake_cls.train``.

    Attributes:
        lr: Peak learning rate.
        epochs: Passes over the training images.
        width: Channels of the stem.
        dropout: Dropout probability of the head.
        channels: ``RGB`` or ``RGBA``.
        batch_size: Images in a batch.
        seed: Seed of weights, order, augmentation and dropout.
        tta: Test-time augmentation scored beside the plain result: ``none`` or ``flip``.
        checkpoint: Resume from this file; None resumes the run's own last checkpoint, if any.
        run_dir: Where the run lives; None is ``runs/cnn/<id>``. The parent of all jobs in a sweep.
        force: Repeat a finished run.
        data: The data set.
        recipe: How the network is trained.
        trainer: Where and how arithmetic runs.
    """

    lr: float = 3e-4
    epochs: int = 100
    width: int = 64
    dropout: float = 0.3
    channels: str = "RGBA"
    batch_size: int = 64
    seed: int = 0
    tta: str = "none"
    checkpoint: str | None = None
    run_dir: str | None = None
    force: bool = False
    data: Any = field(default_factory=SyntheticConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class KnnConfig:
    """``python -m deepfake_cls.knn``.

    Attributes:
        k: Numbers of neighbours; all come from one pass.
        features: ``raw``, ``histogram`` or ``spectrum``.
        shift: Move the validation images by so many pixels, right and down, before they are compared.
    """

    k: list[int] = field(default_factory=lambda: [3, 5, 7, 9, 11])
    features: str = "raw"
    shift: int = 0
    channels: str = "RGB"
    seed: int = 0
    run_dir: str | None = None
    force: bool = False
    data: Any = field(default_factory=SyntheticConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class EvaluateConfig:
    """``python -m deepfake_cls.evaluate``.

    Attributes:
        checkpoint: The trained model.
        split: A labelled split.
        tta: ``none`` or ``flip``.
    """

    checkpoint: str = "???"
    split: str = "validation"
    tta: str = "none"
    batch_size: int = 256
    seed: int = 0
    run_dir: str | None = None
    force: bool = False
    data: Any = field(default_factory=SyntheticConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class PredictConfig:
    """``python -m deepfake_cls.predict``.

    Attributes:
        checkpoint: The trained model.
        split: Any split, labelled or not.
        tta: ``none`` or ``flip``.
        output: The CSV that is written.
        probabilities: Add a column with the probability of each class.
        names: Write class names instead of label numbers.
    """

    checkpoint: str = "???"
    split: str = "test"
    tta: str = "none"
    output: str = "submission.csv"
    probabilities: bool = False
    names: bool = False
    batch_size: int = 256
    data: Any = field(default_factory=SyntheticConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class ReportConfig(TrainConfig):
    """``python -m deepfake_cls.report``; the keys of training say which runs belong to the tables.

    Attributes:
        runs: Folder that is searched for ``result.json``.
        output: Folder of the page.
        table: Only this table, 1 to 10; None makes all.
        require: Make no table unless every arm has the seeds 0 to n − 1; None makes it of what is there.
    """

    runs: str = "runs"
    output: str = "reports"
    table: int | None = None
    require: int | None = None
