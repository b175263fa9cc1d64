"""Typed configuration: the schema of every key; those of the data layouts come from ``config_data``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepfake_cls.config_data import DataConfig as DataConfig
from deepfake_cls.config_data import FolderConfig as FolderConfig
from deepfake_cls.config_data import HfConfig as HfConfig
from deepfake_cls.config_data import ImageFilesConfig as ImageFilesConfig
from deepfake_cls.config_data import PatternConfig as PatternConfig
from deepfake_cls.config_data import SyntheticConfig as SyntheticConfig
from deepfake_cls.config_data import TableConfig as TableConfig
from deepfake_cls.config_data import UnibucConfig as UnibucConfig
from deepfake_cls.config_runs import CacheConfig, CompareConfig, PluginsConfig, RunsConfig
from deepfake_cls.errors import InputError
from deepfake_cls.schema import Rule, number, one_of


@dataclass
class ModelConfig:
    """The architecture (``conf/model``).

    Attributes:
        name: A registered network.
        args: Its arguments, other than width and dropout.
    """

    name: str = "resnet"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class RecipeConfig:
    """The optimisation (``conf/recipe``); the defaults are the paper's.

    Attributes:
        label_smoothing: Label smoothing of the cross-entropy.
        class_weights: Weights of the classes in the cross-entropy. balanced: n / (C n_c) for a class with n_c of the n
            training images of C classes; none: all are 1.
        weight_decay: Decoupled weight decay of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        decay_all: Apply the weight decay to biases and normalisation layers too.
        ema: Decay of the moving average of the weights that is validated, scored and saved; 0 uses the last weights.
        batch_norm: Statistics of batch normalisation that are scored and saved in last.ckpt. running: those of the last
            batches. augmented or clean: computed after the training from 2,500 training images, with all augmentations
            that change no target, or with none.
    """

    label_smoothing: float = number(0.1, least=0, below=1)
    weight_decay: float = number(1e-4, least=0)
    warmup: float = number(0.1, above=0, below=1, expected="a share between 0 and 1")
    decay_all: bool = True
    ema: float = number(0.0, least=0, below=1, expected="0, or a decay below 1, such as 0.99")
    batch_norm: str = one_of("running", "augmented", "clean")
    class_weights: str = one_of("none", "balanced")


@dataclass
class TrainerConfig:
    """Hardware: device, precision, threads (``conf/trainer``).

    Attributes:
        device: auto, cpu or cuda.
        precision: auto, 32-true or bf16-mixed; auto takes bf16 only where the hardware multiplies it.
        threads: CPU threads; null keeps torch's choice.
        deterministic: Use deterministic kernels on a GPU, for bit equality.
        compile: Use torch.compile. The first step is slow, later ones are faster on GPUs; no gain on the CPUs measured.
        progress: Show progress bars.
        curve_images: Number of validation images that score each epoch; null takes all. The final scores use all.
    """

    device: str = one_of("auto", "cpu", "cuda")
    precision: str = one_of("auto", "32-true", "bf16-mixed")
    threads: int | None = number(None, least=1, expected="1 or more, or null for torch's choice")
    deterministic: bool = False
    compile: bool = False
    progress: bool = True
    curve_images: int | None = number(None, least=1, expected="1 or more, or null for all")


@dataclass
class LoggerConfig:
    """Where curves are saved (``conf/logger``).

    Attributes:
        name: tensorboard, csv, mlflow or wandb; logger=NAME sets it.
        args: Arguments of Lightning's logger of that name.
    """

    name: str = one_of("tensorboard", "csv", "mlflow", "wandb")
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class CommandConfig(PluginsConfig):
    """Keys of every command that reads images.

    Attributes:
        data: The data set.
        trainer: Hardware.
    """

    data: Any = field(default_factory=SyntheticConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class RunConfig(CommandConfig):
    """Keys of the commands that make runs.

    Attributes:
        seed: Changes no result; data.fold=${seed} may refer to it.
        run_dir: Folder of the run, by default runs/KIND/ID; in a sweep the parent of all jobs' folders.
        force: Repeat a finished run.
    """

    seed: int = 0
    run_dir: str | None = None
    force: bool = False


@dataclass
class TrainConfig(RunConfig):
    """``python -m deepfake_cls.train``.

    Attributes:
        lr: Peak learning rate; scale sets it.
        epochs: Passes over the training images; scale sets it.
        width: Channels of the stem, for networks that have this argument; scale sets it.
        dropout: Dropout probability of the head, for networks that have this argument.
        channels: RGB or RGBA; the paper uses RGBA.
        batch_size: Images in a batch.
        seed: Seed of weights, order, augmentation and dropout.
        tta: Test-time augmentation that is scored too: flip, the mean over each image and its mirror image, or none.
        checkpoint: Resume from this file; null resumes from the run's last checkpoint, if any.
        init: Start from the weights of this checkpoint, where names and shapes fit.
        model: The architecture.
        augment: Strengths of each augmentation by name, in order; null removes one.
        recipe: The optimisation.
        logger: Where curves are saved.
    """

    lr: float = number(3e-4, above=0)
    epochs: int = number(100, least=1)
    width: int = number(64, least=1)
    dropout: float = number(0.3, least=0, below=1)
    channels: str = one_of("RGBA", "RGB")
    batch_size: int = number(64, least=2)
    tta: str = one_of("flip", "none")
    checkpoint: str | None = None
    init: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: dict[str, Any] = field(default_factory=dict)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class KnnConfig(RunConfig):
    """``python -m deepfake_cls.knn``.

    Attributes:
        k: Numbers of neighbours, all from one pass. Metrics are at k = 5 if it is listed, else at the first.
        features: raw (pixels), histogram (of colours) or spectrum.
        shift: Number of pixels by which validation images are shifted right and down before the search.
        channels: RGB or RGBA.
    """

    k: list[int] = field(
        default_factory=lambda: [3, 5, 7, 9, 11],
        metadata={
            "rule": Rule(
                lambda ks: bool(ks) and min(ks) >= 1 and len(set(ks)) == len(ks),
                "different numbers of 1 or more, such as 'k=[3,5,7]'",
            )
        },
    )
    features: str = one_of("raw", "histogram", "spectrum")
    shift: int = number(0, least=0, expected="0 or more pixels")
    channels: str = one_of("RGB", "RGBA")


# Groups of models.image_statistics, in their order there.
STATISTICS = ("colours", "derivatives", "covariance", "spectrum", "cooccurrences")


@dataclass
class StatisticsConfig(RunConfig):
    """``python -m deepfake_cls.statistics``.

    Attributes:
        seed: Seed of the folds of the cross-validation and of the landmarks of the kernel.
        features: Groups of image statistics: colours, derivatives, covariance, spectrum, cooccurrences.
        classifier: kernel or linear ridge regression.
        fusion: A CNN run and a statistics run on one fold of the training split (data.fold_of=train). The weight of
            evaluate fuse=RUN is fitted on them.
    """

    features: list[str] = field(
        default_factory=lambda: [*STATISTICS],
        metadata={
            "rule": Rule(
                lambda names: bool(names) and len({*names}) == len(names) and {*names} <= {*STATISTICS},
                f"different names among {', '.join(STATISTICS)}, such as 'features=[colours,covariance]'",
            )
        },
    )
    classifier: str = one_of("kernel", "linear")
    fusion: list[str] = field(
        default_factory=list,
        metadata={"rule": Rule(lambda runs: len(runs) in (0, 2), "a CNN run and a statistics run: 'fusion=[RUN,RUN]'")},
    )


@dataclass
class EvaluateConfig(RunConfig):
    """``python -m deepfake_cls.evaluate``.

    Attributes:
        checkpoint: File of the trained model.
        fuse: A statistics run: its folder, or the first digits of its id. Its probabilities are combined with the
            network's in additional metrics.
        split: A labelled split.
        tta: Test-time augmentation: none, or flip, the mean over each image and its mirror image.
        batch_size: Images in a batch.
    """

    checkpoint: str = "???"
    fuse: str | None = None
    split: str = "validation"
    tta: str = one_of("none", "flip")
    batch_size: int = number(256, least=1)


_CHOOSES_DATA = r"split=|data(?!\.(cache|workers|verify)=)[.@=]"  # overrides that choose images


@dataclass
class PredictConfig(CommandConfig):
    """``python -m deepfake_cls.predict``.

    Attributes:
        paths: Images to label, and folders with images: the arguments without =, and all after --. Not with data= or
            split=.
        checkpoint: File of the trained model.
        split: Any split of data=, labelled or not.
        tta: Test-time augmentation: none, or flip, the mean over each image and its mirror image.
        resize: Resize images of another size than the network's; false skips them; null does as in the training.
        output: The CSV file to write; - writes it to standard output. null prints a table, but data=unibuc writes
            submission.csv.
        probabilities: Add a column with the probability of each class.
        names: Write class names, or with false label numbers; null is true, but false for data=unibuc.
        batch_size: Images in a batch.
    """

    paths: list[str] = field(default_factory=list, metadata={"excludes": _CHOOSES_DATA})
    checkpoint: str = "???"
    split: str = "test"
    tta: str = one_of("none", "flip")
    resize: bool | None = None
    output: str | None = None
    probabilities: bool = False
    names: bool | None = None
    batch_size: int = number(256, least=1)


@dataclass
class AuditConfig(CommandConfig):
    """``python -m deepfake_cls.audit``.

    Attributes:
        output: Folder of the page index.html and of audit.json.
        strict: End with exit status 1 if a check fails.
        seed: Seed of the folds and of the forests of the shortcut tests.
    """

    output: str = "reports/audit"
    strict: bool = False
    seed: int = 0


@dataclass
class ReportConfig(TrainConfig):
    """``python -m deepfake_cls.report``; the keys of training select the runs of the tables.

    Attributes:
        runs: Folder that is searched for result.json.
        output: Folder of the page.
        table: Make only this table; null makes all.
        require: Make no table unless every arm has the seeds 0 to n - 1; null makes tables from the available runs.
    """

    runs: str = "runs"
    output: str = "reports"
    table: int | None = None
    require: int | None = None


SCHEMAS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "knn": KnnConfig,
    "statistics": StatisticsConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "report": ReportConfig,
    "audit": AuditConfig,
    "compare": CompareConfig,
    "runs": RunsConfig,
    "cache": CacheConfig,
}


def conf_dir() -> Path:
    """The folder of configurations: next to the package in a clone, inside it in a wheel.

    Raises:
        InputError: If neither exists.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise InputError(f"No conf/ in {package} or next to it: the installation is damaged; install the package again.")
