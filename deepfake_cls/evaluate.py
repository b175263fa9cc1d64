"""Score a trained model on a labelled split: ``python -m deepfake_cls.evaluate checkpoint=FILE``."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

from deepfake_cls.cli import main
from deepfake_cls.config import EvaluateConfig


def run(config: EvaluateConfig, sweep: bool) -> None:
    """Score one checkpoint on one split; skip it if it is done."""
    started = time.perf_counter()
    from deepfake_cls.commands import label_command, predict_command
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.images import fingerprint, require_labels, require_same_classes
    from deepfake_cls.inference import data_as_trained, open_model, open_scored_split, predict_split
    from deepfake_cls.records import digest_of, write_predictions, write_record
    from deepfake_cls.run_folders import claim
    from deepfake_cls.run_key import run_key
    from deepfake_cls.stats.metrics import score
    from deepfake_cls.summary import print_run

    model, hardware = open_model(config)
    config = replace(config, data=data_as_trained(config.data, model))
    manifest = read_manifest(config.data)
    require_labels(manifest, config.split, predict_command(config.checkpoint, asdict(config)))
    require_same_classes(model.classes, manifest)
    split = open_scored_split(config, model, manifest)
    splits = {config.split: split}
    digests = {"checkpoint": digest_of("checkpoint", config.checkpoint)}
    key = run_key("evaluate", config, fingerprint(manifest, splits), hardware, **digests)
    with claim("evaluate", key, config, sweep=sweep) as run:
        record = run.done
        if record is not None:
            print(f"{run.path}: already done; force=true repeats it.")
        else:
            print(f"{run.path}: {hardware.describe()}", flush=True)
            opened = time.perf_counter()
            outputs = predict_split(config, model, split, hardware)
            probs = outputs.final_probs
            scores = score(split.labels, probs)
            metrics = scores.prefixed(config.split)
            record = run.result(
                config, manifest, splits, hardware, scores, seed=model.seed, metrics=metrics, digests=digests
            )
            ended = time.perf_counter()
            record.seconds = {"total": ended - started, "setup": opened - started, "evaluate": ended - opened}
            path = run.path / "predictions.npz"
            write_predictions(path, split.ids, split.labels, probs, logits=outputs.logits, features=outputs.features)
            write_record(run.path, record)
        label = label_command(config.checkpoint, asdict(config))
        print_run(record, run.path, {} if sweep else {"label images": label})


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, run)
