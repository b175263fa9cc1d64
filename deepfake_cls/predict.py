"""Label images with a trained model: ``python -m deepfake_cls.predict PHOTO FOLDER checkpoint=FILE``."""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config import ImageFilesConfig, PredictConfig
from deepfake_cls.data.manifest import CUT_SPLITS, STANDARD_SPLITS
from deepfake_cls.errors import IncompleteError, InputError

if TYPE_CHECKING:  # importing torch takes seconds, and an error in the arguments comes first
    from deepfake_cls.answers import Answers
    from deepfake_cls.checkpoints import Model
    from deepfake_cls.hardware import Hardware

_log = logging.getLogger(__name__)


def run(config: PredictConfig, sweep: bool) -> None:
    """Label the images of paths or of a split; write a CSV file, or print a table.

    Raises:
        InputError: If a key is wrong, or the output would replace another file.
        IncompleteError: If some images have no answer; the answers are written.
    """
    if sweep:
        raise InputError(ONCE["predict"])
    from deepfake_cls.answers import STDOUT, check_output, summary, table_text, write_csv
    from deepfake_cls.data.paths import refusals
    from deepfake_cls.escaping import printable
    from deepfake_cls.inference import open_model

    competition = not config.paths and config.data.name == "unibuc"
    output = config.output or ("submission.csv" if competition else None)
    if config.resize is not None and not config.paths and not isinstance(config.data, ImageFilesConfig):
        raise InputError(f"resize: data={config.data.name} has no image files to resize; omit this key.")
    if output is not None:
        root = Path(getattr(config.data, "root", ""))
        check_output(output, [root / f"{split}.csv" for split in STANDARD_SPLITS] if competition else [])
    model, hardware = open_model(config)
    if config.resize is not None and model.crops is not None:
        raise InputError(f"resize: the model was trained on crops of {model.crops.side} native pixels; omit this key.")
    answers = (_label_paths if config.paths else _label_split)(config, model, hardware)
    if competition or (config.probabilities and "synthetic" in answers.classes):
        # A submission has two columns. A class named synthetic has a column p_synthetic of its own.
        answers = replace(answers, real=None)
    messages = sys.stderr if output in STDOUT else sys.stdout
    if output is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(table_text(answers, probabilities=config.probabilities, width=width), end="\n\n")
    else:
        skipping = [getattr(config.data, key, "raise") for key in ("on_error", "small")]
        skipping += [] if model.crops is None else [model.crops.small]
        skips = bool(config.paths) or "skip" in skipping
        numbers = not answers.names and not competition
        write_csv(answers, output, probabilities=config.probabilities, name_column=numbers, error_column=skips)
        place, count = "standard output" if output in STDOUT else printable(output), len(answers.ids)
        print(f"{place}: {count:,} row{'s' * (count != 1)}", file=messages)
    print(*map(printable, summary(answers)), sep="\n", file=messages, flush=True)
    if answers.reasons:
        text = refusals(answers.ids, answers.reasons, _size_advice(model))
        raise IncompleteError(f"Images without an answer: {len(answers.reasons):,} of {len(answers.ids):,}{text}")


def _size_advice(model: Model) -> str:
    """What to say about an image of another size."""
    height, width = model.size
    if model.crops is not None:
        return f"the network was trained on crops of {height}×{width} native pixels; give an image of that size or more"
    trained = " without resizing" if model.resize is False else ""
    answer = "" if model.resize else ", whose answers are then less reliable"
    return f"the network was trained on {height}×{width} images{trained}; resize=true resizes other sizes{answer}"


def _label_paths(config: PredictConfig, model: Model, hardware: Hardware) -> Answers:
    """Label the images that paths name."""
    from deepfake_cls.answers import Answers
    from deepfake_cls.data.build import cores
    from deepfake_cls.data.listing import entries
    from deepfake_cls.data.paths import PathBatches, list_paths
    from deepfake_cls.inference import predict_batches

    paths = list_paths(config.paths)
    if paths.ignored:
        text = "ignored %s (hidden, or without the suffix of an image), such as %s"
        _log.info(text, entries(len(paths.ignored)), paths.ignored[0])
    resize = bool(model.resize) if config.resize is None else config.resize
    advice, workers = _size_advice(model), config.data.workers or cores()
    batches = PathBatches(
        paths,
        model.size,
        model.channels,
        resize,
        config.batch_size,
        workers,
        advice,
        crops=model.crops,
        reencode=model.reencode,
    )
    following = iter(batches)
    first = next(following, None)
    probs = np.zeros((0, len(model.classes)), np.float32)
    if first is not None:  # else no image can be read
        probs = predict_batches(config, model, chain([first], following), len(paths.ids), hardware).final_probs
    if batches.resized and model.resize:
        _log.info("resized %d of %d images to %d×%d, as in training", batches.resized, len(paths.ids), *model.size)
    elif batches.resized:
        text = "resized %d of %d images to %d×%d by Lanczos, which changes generator traces: expect a lower accuracy"
        _log.warning(text, batches.resized, len(paths.ids), *model.size)
    names, rows = config.names is not False, np.array(batches.rows, np.int64)
    return Answers(paths.ids, rows, probs, paths.reasons, model.classes, names, model.real_label)


def _label_split(config: PredictConfig, model: Model, hardware: Hardware) -> Answers:
    """Label a split of a data set."""
    from deepfake_cls.answers import Answers
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.paths import advise_on_size
    from deepfake_cls.inference import data_as_trained, open_scored_split, predict_split

    data: Any = data_as_trained(config.data, model)
    if config.resize is not None:
        data = replace(data, resize=config.resize)
    config = replace(config, data=data)
    manifest = read_manifest(data, config.trainer.progress, cut=config.split in CUT_SPLITS)
    if data.name == "synthetic" and manifest.classes != tuple(model.classes):
        raise InputError(
            "No images are given. Give files or folders, as in deepfake-cls predict PHOTOS checkpoint=FILE, or a data"
            " set, as in data=folder data.root=PATH."
        )
    split = open_scored_split(config, model, manifest)
    probs = predict_split(config, model, split, hardware).final_probs
    ids = manifest.split(config.split).ids
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    reasons = {row_of[image_id]: advise_on_size(text, _size_advice(model)) for image_id, text in split.store.skipped}
    # The competition asks for numbers. Its classes have numbers as names, of which data.exclude can leave some out.
    names = data.name != "unibuc" or all(name.isdigit() for name in model.classes)
    names = names if config.names is None else config.names
    return Answers(ids, split.store.kept, probs, reasons, model.classes, names, model.real_label)


if __name__ == "__main__":
    main("predict", PredictConfig, run, positional="paths")
