"""Train a network: ``python -m deepfake_cls.train``, and ``-m lr=1e-4,3e-4,1e-3`` for a sweep."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deepfake_cls import distributed
from deepfake_cls.cli import main
from deepfake_cls.config import TrainConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from deepfake_cls.data.datamodule import ImageData
    from deepfake_cls.hardware import Hardware


def run(config: TrainConfig, sweep: bool) -> None:
    """Train, or go on with, one run; a finished one is left alone.

    Raises:
        InputError: If the configuration, the data or a checkpoint is wrong.
    """
    started = time.perf_counter()
    if config.force and config.checkpoint is not None:
        raise InputError("force=true starts again from nothing, checkpoint=FILE goes on: give one of them.")
    from deepfake_cls.data import read_manifest

    manifest = read_manifest(config.data)  # before the slow imports: a wrong path is told at once
    manifest.require_classes()
    from deepfake_cls.data.datamodule import ImageData
    from deepfake_cls.data.images import fingerprint
    from deepfake_cls.hardware import choose, prepare_compiler
    from deepfake_cls.models.registry import check_arguments
    from deepfake_cls.records import digest_of
    from deepfake_cls.runs import claim, key_here
    from deepfake_cls.summary import argument, data_arguments, plugin_arguments, print_run
    from deepfake_cls.training import fit
    from deepfake_cls.training.augment import Pipeline

    check_arguments(config.model.name, config.model.args)
    Pipeline(config.augment, config.seed)  # refuses what it cannot apply
    hardware = choose(config.trainer)
    if config.trainer.compile:
        prepare_compiler(hardware)
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
    check_batches(config, data, hardware)
    splits = {"train": data.train, "validation": data.validation}
    digests = {} if config.init is None else {"init": digest_of("init", config.init)}
    identity = key_here("cnn", config, fingerprint(data.manifest, splits), hardware, **digests)
    with distributed.joined(hardware.device), claim("cnn", identity, config, sweep=sweep) as claimed:
        record = claimed.done
        if record is not None and config.tta == "flip" and "val_acc_flip" not in record.metrics:
            print(f"{claimed.path}: already done; adding tta=flip from its checkpoint.")
            record = fit.add_flip(data, hardware, claimed)
        elif record is not None:
            print(f"{claimed.path}: already done; force=true repeats it.")
        else:
            print(f"{claimed.path}: {hardware.describe()}", flush=True)
            if config.channels == "RGBA" and not data.train.store.has_alpha:
                print("The images have no alpha channel: RGBA adds a constant plane of 255.")
            record = fit.fit_and_score(config, data, hardware, claimed, digests, started)
        if distributed.rank() != 0:
            return
        assert record is not None
        words = [argument("checkpoint", claimed.last), data_arguments(config.data), *plugin_arguments(config.plugins)]
        words += [] if "test" in manifest.splits else ["split=validation"]
        print_run(record, claimed.path, f"python -m deepfake_cls.predict {' '.join(words)}")


def check_batches(config: TrainConfig, data: ImageData, hardware: Hardware) -> None:
    """Refuse batches that are too small to be shared.

    Raises:
        InputError: Naming the batch size.
    """
    if config.batch_size < 2 * hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: expected 2 or more for each of {hardware.processes} processes."
        )
    rest = len(data.train) % config.batch_size
    if hardware.device == "cuda" and 0 < rest < hardware.processes:
        raise InputError(
            f"batch_size={config.batch_size}: the last batch of {len(data.train)} images would have {rest}, too few for"
            f" each of {hardware.processes} devices, which normalise together. Choose another batch size."
        )


if __name__ == "__main__":
    main("train", TrainConfig, run)
