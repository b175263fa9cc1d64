"""Train a network: ``python -m deepfake_cls.train``, and ``-m lr=1e-4,3e-4,1e-3`` for a sweep."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from deepfake_cls import distributed
from deepfake_cls.cli import main
from deepfake_cls.config import TrainConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from deepfake_cls.data.datamodule import ImageData
    from deepfake_cls.data.manifest import Manifest
    from deepfake_cls.hardware import Hardware


def run(config: TrainConfig, sweep: bool) -> None:
    """Train or resume one run; skip it if it is finished."""
    started = time.perf_counter()
    if config.force and config.checkpoint is not None:
        raise InputError("force=true starts the run again, checkpoint=FILE resumes it: give one of them.")
    from deepfake_cls.data import read_manifest

    # Before the slow imports, so that a wrong path is reported at once.
    manifest = read_manifest(config.data, config.trainer.progress)
    manifest.require_classes()
    from deepfake_cls.data.cautions import warn
    from deepfake_cls.data.images import fingerprint
    from deepfake_cls.records import digest_of
    from deepfake_cls.run_folders import claim
    from deepfake_cls.run_key import run_key
    from deepfake_cls.summary import print_run
    from deepfake_cls.training import fit

    hardware = prepare(config)
    data = open_data(config, manifest, hardware)
    splits = {"train": data.train, "validation": data.validation}
    digests = {} if config.init is None else {"init": digest_of("init", config.init)}
    key = run_key("cnn", config, fingerprint(manifest, splits), hardware, **digests)
    with distributed.joined(hardware.device), claim("cnn", key, config, sweep=sweep) as run:
        record = run.done
        if record is not None and config.tta == "flip" and "val_acc_flip" not in record.metrics:
            print(f"{run.path}: already done; adding tta=flip from its checkpoint.")
            record = fit.add_flip(data, hardware, run)
        elif record is not None:
            print(f"{run.path}: already done; force=true repeats it.")
        else:
            print(f"{run.path}: {hardware.describe()}", flush=True)
            print_channels(config.channels, data.train.store.has_alpha)
            if distributed.rank() == 0:
                warn(manifest, config.data, config.trainer.progress)
            record = fit.fit_and_score(config, data, hardware, run, digests, started)
        if distributed.rank() != 0:
            return
        assert record is not None
        print_run(record, run.path, {} if sweep else next_commands(config, manifest, run.last))


def next_commands(config: TrainConfig, manifest: Manifest, checkpoint: Path) -> dict[str, str]:
    """The commands to continue with: label the test images, or else compare runs and label the user's own images."""
    from deepfake_cls.commands import command, label_command, overrides_of, predict_command

    values, test = asdict(config), manifest.splits.get("test")
    if test is not None and test.labels.min(initial=0) < 0:
        return {"next": predict_command(checkpoint, values)}
    report = command("report", overrides_of("report", values))
    return {"next": report, "label images": label_command(checkpoint, values)}


def print_channels(channels: str, has_alpha: bool) -> None:
    """Say so if ``channels`` is not what the image files contain."""
    if channels == "RGBA" and not has_alpha:
        print("The images have no alpha channel: channels=RGBA adds a constant one. channels=RGB omits it.", flush=True)
    elif channels == "RGB" and has_alpha:
        print("The images have an alpha channel, which channels=RGB does not use.", flush=True)


def prepare(config: TrainConfig) -> Hardware:
    """Check the network and the augmentations before the data is read, and choose the hardware."""
    from deepfake_cls.hardware import choose, prepare_compiler
    from deepfake_cls.models.registry import check_network
    from deepfake_cls.training.augment import Pipeline

    check_network(config.model.name, config.model.args)
    Pipeline(config.augment, config.seed)
    hardware = choose(config.trainer)
    if config.trainer.compile:
        prepare_compiler(hardware)
    return hardware


def open_data(config: TrainConfig, manifest: Manifest, hardware: Hardware) -> ImageData:
    """Open the training and validation images.

    Raises:
        InputError: If images cannot be used, or a batch is too small to be shared by the processes.
    """
    from deepfake_cls.data.datamodule import ImageData

    data = ImageData(
        manifest,
        config.data,
        config.channels,
        config.batch_size,
        config.seed,
        config.trainer.progress,
        config.trainer.curve_images,
        hardware.device,
    )
    if config.batch_size < 2 * hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: expected 2 or more for each of {hardware.processes} processes."
        )
    last = len(data.train) % config.batch_size
    if hardware.device == "cuda" and 0 < last < hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: the last batch of {len(data.train)} images would have {last}, too few for"
            f" each of {hardware.processes} devices, because batch normalisation spans them. Choose another batch size."
        )
    return data


if __name__ == "__main__":
    main("train", TrainConfig, run)
