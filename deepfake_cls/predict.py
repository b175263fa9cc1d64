"""Label images with a trained model: ``python -m deepfake_cls.predict checkpoint=FILE data=... output=FILE``."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from deepfake_cls.cli import main
from deepfake_cls.config import PredictConfig
from deepfake_cls.errors import InputError, writing


def run(config: PredictConfig, sweep: bool) -> None:
    """Write a CSV with a label for each image, in the order of the split."""
    if sweep:
        raise InputError("predict writes one file; call it once for each checkpoint instead of sweeping with -m.")
    from deepfake_cls.inference import open_model, open_scored_split, predict_split
    from deepfake_cls.records import write_atomically

    output = Path(config.output)
    if output.is_dir():
        raise InputError(f"output={output}: is a folder; give the name of a CSV file.")
    with writing(output, "choose another output=FILE"):  # an error comes before the work, not after it
        output.parent.mkdir(parents=True, exist_ok=True)
    model, hardware = open_model(config)
    _, split = open_scored_split(config, model)
    outputs = predict_split(config, model, split, hardware)
    probs = outputs.final_probs
    labels = probs.argmax(axis=1)

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"p_{name}" for name in model.classes] if config.probabilities else []
    writer.writerow(["image_id", "label", *columns])
    for image_id, label, row in zip(split.ids, labels, probs, strict=True):
        cells = [f"{p:.6f}" for p in row] if config.probabilities else []
        writer.writerow([image_id, model.classes[label] if config.names else int(label), *cells])
    write_atomically(output, text.getvalue().encode(errors="surrogateescape"), "choose another output=FILE")

    print(f"{output}: {len(split)} images of split {config.split}")
    for label, count in sorted(Counter(labels.tolist()).items()):
        print(f"  {model.classes[label]}: {count} ({100 * count / len(split):.1f} %)")
    for image_id, reason in split.store.skipped:
        print(f"  not labelled: {image_id}: {reason}")


if __name__ == "__main__":
    main("predict", PredictConfig, run)
