"""The reference network and the neighbours on a GPU, beside the plain recipe on the same one.

Claim: an epoch of 12,500 images, the share of the device's measured matrix rate, the time to the first step, and exact
neighbours of 1,250 among 12,500 images. Needs no network, and neither Hydra nor OmegaConf.

    python -m benchmarks.gpu                         # embedded data
    python -m benchmarks.gpu --data PATH             # images of data=unibuc or data=folder
    python -m benchmarks.gpu --device cpu --quick    # whether it runs
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Stopwatch, alternate, fresh
from benchmarks.neighbours import random_pixels
from benchmarks.samples import Source, splits, write_pngs
from deepfake_cls.data.build import cores
from deepfake_cls.records import git_state, versions, write_atomically

EPOCH = 12_500


@dataclass(frozen=True)
class Plan:
    """Sizes and counts."""

    embedded: Source = field(default_factory=lambda: Source(train=EPOCH))
    width: int = 64
    batches: tuple[int, ...] = (64, 128, 256, 512, 1024)  # the first is the recipe's
    epochs: int = 3  # the first does not count
    repeats: int = 3
    knn: tuple[int, int, tuple[int, int, int]] = (1250, EPOCH, (100, 100, 3))
    matrices: tuple[int, ...] = (2048, 4096, 8192, 16_384)


QUICK = Plan(Source(train=40, validation=20, side=32), 8, (8, 16), 2, 1, (20, 200, (10, 10, 3)), (64, 128))


def train(source: dict[str, Any], width: int, batch: int, epochs: int, device: str) -> dict[str, float]:
    """Train whole epochs; the first does not count.

    The trainer is that of ``deepfake_cls.train`` without its logger and its checkpoints, whose module needs Hydra.

    Args:
        source: The fields of ``samples.Source``.
        width: Channels of the stem.
        batch: Images in a batch.
        epochs: Two or more.
        device: ``cpu`` or ``cuda``.

    Returns:
        ``rate`` in images a second, ``first_step`` in seconds since the process started, ``flops`` for an image.
    """
    import lightning as L
    import torch

    from benchmarks.ours import Clock, classifier, training_flops
    from benchmarks.samples import image_data
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose

    hardware = choose(TrainerConfig(device=device))
    images = image_data(Source(**source), batch, device)
    steps = len(images.train_dataloader())
    watch = Stopwatch(steps, epochs * steps, torch.cuda.synchronize if device == "cuda" else lambda: None)
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=epochs,
        benchmark=device == "cuda",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Clock(watch)],
    )
    trainer.fit(classifier(images, width, epochs * steps), datamodule=images)
    height, side = images.train.store.size
    flops = training_flops(width, 3, len(images.manifest.classes), height, side)
    return {"rate": watch.rate, "first_step": watch.first_step, "flops": flops}


def limits(device: str, sizes: list[int]) -> dict[str, Any]:
    """The device's name, precision, and rate of matrix products in that precision."""
    from benchmarks.limits import matrix_rates
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose

    hardware = choose(TrainerConfig(device=device))
    kind = "bf16" if hardware.precision == "bf16-mixed" else "fp32"
    rates = matrix_rates(device, [kind], sizes, repeats=5)[kind]
    return {"device": hardware.name, "precision": hardware.precision, "flop_per_second": rates}


def measure(plan: Plan, root: str | None, device: str, folder: Path) -> dict[str, Any]:
    """Make all measurements: what was found, by name."""
    source = replace(plan.embedded, root=root)
    pngs = folder / "pngs"
    write_pngs(splits(source), pngs, EPOCH)
    images = len(list((pngs / "train").glob("*/*.png")))
    machine = fresh("benchmarks.gpu:limits", device=device, sizes=plan.matrices)
    limit = max(machine["flop_per_second"].values())
    workers = max(2, cores())

    def ours(batch: int) -> dict[str, Any]:
        sizes = {"width": plan.width, "batch": batch, "epochs": plan.epochs}
        result = fitting("benchmarks.gpu:train", source=asdict(source), device=device, **sizes)
        if "rate" in result:
            result["share"] = result["rate"] * result["flops"] / limit
        return told(f"ours, batch {batch}", result)

    def plain(batch: int) -> dict[str, Any]:
        steps = -(-images // batch)
        more = {"workers": workers, "device": device, "skip": steps, "steps": plan.epochs * steps}
        result = fitting("benchmarks.plain:train", folder=str(pngs), width=plan.width, batch=batch, **more)
        return told(f"plain, batch {batch}", result)

    first, *others = plan.batches
    training = {f"batch {first}": alternate({"ours": lambda: ours(first), "plain": lambda: plain(first)}, plan.repeats)}
    tried = {batch: ours(batch) for batch in others}
    training |= {f"batch {batch}": {"ours": [result]} for batch, result in tried.items()}
    fitted = [batch for batch in others if "rate" in tried[batch]]
    best = max(fitted, key=lambda batch: float(tried[batch]["rate"]), default=first)
    if best != first:
        training[f"batch {best}"]["plain"] = [plain(best)]

    pixels = asdict(random_pixels(folder, *plan.knn))
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": partial(fresh, "benchmarks.neighbours:ours", pixels=pixels, device=device),
        "torch.cdist": partial(fresh, "benchmarks.neighbours:peer", pixels=pixels, name="torch.cdist", device=device),
    }
    knn = alternate(sides, plan.repeats, tell=lambda name, result: print(f"KNN, {name}: {result['seconds']:.3f} s"))
    labels = [results[0]["labels"] for results in knn.values()]
    return {
        "limits": machine,
        "workers": workers,
        "best_batch": best,
        "training": {
            name: {side: [seconds_of(result) for result in results] for side, results in sides_found.items()}
            for name, sides_found in training.items()
        },
        "knn_seconds": {name: [result["seconds"] for result in results] for name, results in knn.items()},
        "knn_labels_differing": sum(a != b for a, b in zip(*labels, strict=True)),
        "ratios": {
            **{name: ratio(found) for name, found in training.items() if compared(found)},
            "knn": statistics.median(r["seconds"] for r in knn["torch.cdist"])
            / statistics.median(r["seconds"] for r in knn["ours"]),
        },
    }


def fitting(job: str, **arguments: Any) -> dict[str, Any]:
    """A job's figures, or that the device's memory was too small for it."""
    try:
        return fresh(job, **arguments)
    except RuntimeError as error:
        if "OutOfMemoryError" not in str(error):
            raise
        return {"out_of_memory": True}


def compared(found: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether both sides ran, and fitted into the device's memory."""
    return "plain" in found and all("rate" in result for side in found.values() for result in side)


def told(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Print a training's figures."""
    if "rate" not in result:
        print(f"{name}: out of memory", flush=True)
        return result
    share = f", {100 * result['share']:.1f} % of the matrix rate" if "share" in result else ""
    print(f"{name}: {result['rate']:.0f} images/s, first step after {result['first_step']:.1f} s{share}", flush=True)
    return result


def seconds_of(result: dict[str, Any]) -> dict[str, Any]:
    """A training's figures, with the seconds of an epoch."""
    if "rate" not in result:
        return {"out_of_memory": True}
    kept = {name: value for name, value in result.items() if name in ("rate", "first_step", "flops", "share")}
    return {"epoch_seconds": EPOCH / result["rate"], **kept}


def ratio(found: dict[str, list[dict[str, Any]]]) -> float:
    """How many times as fast ours is, by medians."""
    ours, plain = (statistics.median(result["rate"] for result in found[side]) for side in ("ours", "plain"))
    return float(ours / plain)


def main() -> None:
    """Measure, print, and write ``gpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", help="folder of images; without it the embedded data")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deepfake_cls_gpu_") as folder:
        found = measure(QUICK if options.quick else Plan(), options.data, options.device, Path(folder))
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    text = json.dumps({"date": now, **found, "versions": versions(), "git": git_state()}, indent=1)
    print(text)
    write_atomically(options.output / f"gpu{'_quick' if options.quick else ''}.json", text.encode())


if __name__ == "__main__":
    main()
