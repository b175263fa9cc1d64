"""Speed on a GPU: training of the reference network and exact KNN, compared with plain PyTorch on the same GPU.

Training runs for each batch size over 3 epochs, of which the first is warm-up. The limit is the measured rate of matrix
products. It needs neither Hydra nor OmegaConf nor a network connection.

    python -m benchmarks.gpu                         # embedded data; random pixels for KNN
    python -m benchmarks.gpu --data PATH             # images of data=unibuc or data=folder
    python -m benchmarks.gpu --device cpu --quick    # check that it runs
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.samples import Source
from benchmarks.speed import add_arguments, save
from benchmarks.suite import QUICK, Job, Plan, Suite, column
from benchmarks.table import Row, number
from deepfake_cls.data.build import cores

EPOCH = 12_500  # images
PLAN = Plan(
    embedded=Source(train=EPOCH),
    pngs=EPOCH,
    knn=(1250, EPOCH),
    matrices=(2048, 4096, 8192, 16_384),
)
BATCHES = (64, 128, 256, 512, 1024)  # the first is the recipe's
SECONDS = 90  # time budget per batch size


def training(suite: Suite, width: int, batch: int, epochs: int) -> Iterator[Row]:
    """Compare training with plain PyTorch; no rows where a side runs out of memory.

    Args:
        suite: After :meth:`Suite.limits`.
        width: Channels of the stem.
        batch: Images per batch.
        epochs: Two or more; the first is warm-up.
    """
    steps = math.ceil(len(list(suite.pngs.glob("train/*/*.png"))) / batch)
    common = {"width": width, "batch": batch, "skip": steps, "steps": epochs * steps, "device": suite.device}
    ours = {"source": asdict(suite.source), "logger": False, **common}
    plain = {"folder": str(suite.pngs), "workers": max(2, cores()), **common}
    sides: dict[str, Job] = {
        "ours": partial(fitting, suite, "benchmarks.ours:train", **ours),
        "plain PyTorch": partial(fitting, suite, "benchmarks.plain:train", **plain),
    }
    name = f"training, width {width}, batch {batch}"
    results = suite.measure(name, sides, suite.plan.repeats, SECONDS)
    if any("out_of_memory" in result for side in results.values() for result in side):
        suite.log(f"{name}: out of memory")
        return
    rates, baseline = column(results, "ours"), column(results, "plain PyTorch")
    limit = suite.matrix_rate(suite.training_precision) / results["ours"][0]["flops"]
    note = f"{number(EPOCH / statistics.median(rates))} s per epoch of {EPOCH:,} images"
    yield Row(f"{name}, images/s", rates, baseline, "plain PyTorch, fp32", limit=limit, note=note)
    first, baseline = (column(results, side, "first_step") for side in sides)
    yield Row(f"{name}, start of the process to the first step, s", first, baseline, "plain PyTorch, fp32", more=False)


def fitting(suite: Suite, job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job; ``out_of_memory`` in place of its result where the device's memory is too small."""
    try:
        return suite.run(job, **arguments)
    except RuntimeError as error:
        if "OutOfMemoryError" not in str(error):
            raise
        return {"out_of_memory": True}


def main() -> None:
    """Measure, print, and write the results as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    plan, width, batches, epochs = (QUICK, 8, (8, 16), 2) if options.quick else (PLAN, 64, BATCHES, 3)
    console = Console()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="deepfake_cls_gpu_") as folder:
        log = partial(console.print, highlight=False)
        suite = Suite(plan, options.data, Path(folder), log, options.device)
        rows = list(suite.limits())
        for batch in batches:
            rows += training(suite, width, batch, epochs)
        rows += suite.knn(["torch.cdist"])
    save(
        suite, rows, time.perf_counter() - started, options.output / ("gpu_quick" if options.quick else "gpu"), console
    )


if __name__ == "__main__":
    main()
