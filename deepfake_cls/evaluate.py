"""Score a trained model on a labelled split: ``python -m deepfake_cls.evaluate checkpoint=FILE``."""

from __future__ import annotations

import time

from deepfake_cls.cli import main
from deepfake_cls.config import EvaluateConfig


def run(config: EvaluateConfig, sweep: bool) -> None:
    """Evaluate one checkpoint.

    Raises:
        InputError: If the configuration, the checkpoint or the data is wrong.
    """
    started = time.perf_counter()
    from deepfake_cls.data.images import describe, fingerprint, require_labels, require_same_classes, skipped
    from deepfake_cls.inference import open_model, open_scored_split, predict_split
    from deepfake_cls.records import Record, digest_of, write_predictions, write_record
    from deepfake_cls.runs import claim, key_here, plain
    from deepfake_cls.stats.metrics import score
    from deepfake_cls.summary import argument, data_arguments, plugin_arguments, print_run

    model, hardware = open_model(config)
    manifest, split = open_scored_split(config, model)
    require_labels(split, config.split)
    require_same_classes(model.classes, manifest)
    splits = {config.split: split}
    weights = digest_of("checkpoint", config.checkpoint)
    identity = key_here("evaluate", config, fingerprint(manifest, splits), hardware, checkpoint=weights)
    with claim("evaluate", identity, config, sweep=sweep) as claimed:
        record = claimed.done
        if record is not None:
            print(f"{claimed.path}: already done; force=true repeats it.")
        else:
            print(f"{claimed.path}: {hardware.describe()}", flush=True)
            setup = time.perf_counter() - started
            before = time.perf_counter()
            outputs = predict_split(config, model, split, hardware)
            probs = outputs.probs if outputs.probs_flip is None else outputs.probs_flip
            scores = score(split.labels, probs)
            record = Record(
                kind="evaluate",
                status="ok",
                identity=identity,
                config=plain(config),
                seed=model.seed,
                data=describe(manifest, splits),
                metrics=scores.prefixed(config.split),
                recall=scores.recall,
                confusion=scores.confusion,
                seconds={
                    "total": time.perf_counter() - started,
                    "setup": setup,
                    "evaluate": time.perf_counter() - before,
                },
                device=hardware.name,
                precision=hardware.precision,
                threads=hardware.threads,
                skipped=skipped(splits),
                digests={"checkpoint": weights},
            )
            write_predictions(
                claimed.path / "predictions.npz",
                split.ids,
                split.labels,
                probs,
                logits=outputs.logits,
                features=outputs.features,
            )
            write_record(claimed.path, record)
        words = [argument("checkpoint", config.checkpoint), data_arguments(config.data)]
        words += plugin_arguments(config.plugins)
        print_run(record, claimed.path, f"python -m deepfake_cls.predict {' '.join(words)}")


if __name__ == "__main__":
    main("evaluate", EvaluateConfig, run)
