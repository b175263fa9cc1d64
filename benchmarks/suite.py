"""The comparisons of ``benchmarks.speed``: sizes, jobs and rows."""

from __future__ import annotations

import math
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import measure, neighbours
from benchmarks.samples import Source, splits, write_pngs
from benchmarks.table import Row, number
from deepfake_cls.errors import InputError

Job = Callable[[], dict[str, Any]]
Results = dict[str, list[dict[str, Any]]]  # of each side, one per repetition
TINY_DATA = [f"data.{name}" for name in ("train_size=40", "validation_size=20", "test_size=10", "workers=1")]
STEP_REACHED = "the first training step"
# The entry point itself; its first training step ends the process.
UNTIL_FIRST_STEP = f"""
import os, runpy
from deepfake_cls.training.module import Classifier

def stop(self, batch, batch_idx):
    print({STEP_REACHED!r}, flush=True)
    os._exit(0)

Classifier.training_step = stop
runpy.run_module("deepfake_cls.train", run_name="__main__", alter_sys=True)
"""


class Training(NamedTuple):
    """A network to train; ``seconds`` is the time budget of its repetitions."""

    width: int
    skip: int  # warm-up steps
    steps: int  # total steps
    repeats: int
    seconds: float


SMALL = Training(width=16, skip=2, steps=16, repeats=3, seconds=215)
REFERENCE = Training(width=64, skip=1, steps=3, repeats=2, seconds=225)


@dataclass(frozen=True)
class Plan:
    """Sizes and counts; the defaults take at most 15 minutes on two idle cores.

    ``..._seconds`` are time budgets (:func:`measure.alternate`).
    """

    embedded: Source = field(default_factory=Source)
    repeats: int = 3
    batch: int = 64
    small: Training = SMALL
    reference: Training = REFERENCE
    pngs: int = 2500  # maximum per split: one epoch of the baselines, so that their workers start only once
    loaded: tuple[int, int] = (4, 36)  # skip, steps
    load_seconds: float = 52
    evaluated: int = 4  # batches of ours, four times the size of training batches; the first is warm-up
    evaluate_seconds: float = 85
    knn: tuple[int, int] = (1250, 11_250)  # queries and references
    knn_shape: tuple[int, int, int] = (100, 100, 3)  # of random pixels
    knn_seconds: float = 110
    reference_counts: tuple[int, ...] = (12_500, 25_000, 50_000, 200_000)
    few_queries: int = 256
    start_seconds: float = 60
    matrices: tuple[int, ...] = (1024, 2048, 4096)
    new_processes: bool = True


QUICK = Plan(
    embedded=Source(train=40, validation=20, side=32),
    repeats=1,
    batch=8,
    small=Training(width=8, skip=1, steps=3, repeats=1, seconds=0),
    reference=Training(width=8, skip=1, steps=2, repeats=1, seconds=0),
    pngs=40,
    loaded=(1, 4),
    evaluated=2,
    knn=(20, 200),
    knn_shape=(10, 10, 3),
    reference_counts=(400,),
    few_queries=4,
    matrices=(64, 128),
    new_processes=False,
)


class Suite:
    """All comparisons, in order; each method yields its rows.

    Args:
        plan: Sizes and counts.
        root: Folder of images; None selects the embedded data, and random pixels for KNN.
        folder: For temporary files.
        log: Called with a line of text after each measurement.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self, plan: Plan, root: str | None, folder: Path, log: Callable[[str], None], device: str = "cpu"
    ) -> None:
        self.plan, self.folder, self.log, self.device = plan, folder, log, device
        self.run = measure.in_new_process if plan.new_processes else measure.in_this_process
        self.source = replace(plan.embedded, root=root)
        self.pngs = folder / "pngs"
        self.side = plan.embedded.side  # of an image, pixels
        self.machine: dict[str, Any] = {}
        self.raw: dict[str, Results] = {}

    def rows(self) -> Iterator[Row]:
        """Make all comparisons."""
        yield from self.limits()
        yield from self.training("small network", self.plan.small, ["plain PyTorch", "plain Lightning"])
        yield from self.training("reference network", self.plan.reference, ["plain PyTorch"])
        yield from self.loading()
        yield from self.evaluation()
        yield from self.knn(list(neighbours.MODULES))
        yield from self.knn_growth()
        yield from self.start_up()

    def measure(self, name: str, sides: dict[str, Job], repeats: int, seconds: float = math.inf) -> Results:
        """Measure the sides in turn, log each result, and record everything that they return."""

        def log(side: str, result: dict[str, Any]) -> None:
            values = [f"{key} {number(result[key])}" for key in ("rate", "all_rate", "seconds") if key in result]
            self.log(f"{name}: {side} {', '.join(values)}")

        self.raw[name] = measure.alternate(sides, repeats, seconds, log)
        return self.raw[name]

    def matrix_rate(self, precision: str) -> float:
        """The best rate of matrix products, FLOP per second."""
        return float(max(self.machine["matrix_flop_per_second"][precision].values()))

    @property
    def training_precision(self) -> str:
        """The precision of this project's training, as in the matrix rates."""
        return "bf16" if self.machine["precision"] == "bf16-mixed" else "fp32"

    def limits(self) -> Iterator[Row]:
        """Measure the rate of matrix products; also prepare the images of both sides.

        Raises:
            InputError: There are too few images.
        """
        plan = self.plan
        images = splits(self.source)
        needed = plan.batch * max(plan.small.steps, plan.loaded[1])
        if len(images["train"]) < needed:
            raise InputError(f"--data {self.source.root}: {len(images['train'])} training images; {needed} are needed.")
        self.side = images["train"].store.size[0]
        self.machine = self.run("benchmarks.limits:machine", sizes=plan.matrices, repeats=3, device=self.device)
        for precision in self.machine["matrix_flop_per_second"]:
            yield Row(f"limit: {precision} matrix product, GFLOP/s", [self.matrix_rate(precision) / 1e9])
        write_pngs(images, self.pngs, plan.pngs)

    def training(self, network: str, plan: Training, baselines: list[str]) -> Iterator[Row]:
        """Compare training with the baselines, with its own kernels and with the rate of matrix products."""
        common = {"width": plan.width, "batch": self.plan.batch, "skip": plan.skip, "steps": plan.steps}
        sides: dict[str, Job] = {
            "ours": partial(self.run, "benchmarks.ours:train", source=asdict(self.source), **common),
            "plain PyTorch": partial(self.run, "benchmarks.plain:train", folder=str(self.pngs), **common),
            "plain Lightning": partial(self.run, "benchmarks.plain:train_lightning", folder=str(self.pngs), **common),
        }
        name = f"training, {network}"
        results = self.measure(name, {side: sides[side] for side in ["ours", *baselines]}, plan.repeats, plan.seconds)
        ours = column(results, "ours")
        limit = self.matrix_rate(self.training_precision) / results["ours"][0]["flops"]
        for baseline in baselines:
            yield Row(f"{name}, images/s", ours, column(results, baseline), baseline, limit=limit)
        size = {"width": plan.width, "batch": self.plan.batch, "side": self.side, "repeats": 2}
        job = partial(self.run, "benchmarks.limits:kernels", **size)
        kernels = self.measure(f"{name}, kernels", {"ours": job}, 2, 60)
        for key, kind in (("rate", "its convolutions only"), ("all_rate", "all of its kernels, timed one by one")):
            yield Row(f"{name}, images/s", ours, column(kernels, "ours", key), kind)
        peaks, plain = (megabytes(results, side, "peak") for side in ("ours", "plain PyTorch"))
        if all(peaks):
            imports = number(statistics.median(megabytes(results, "ours", "before")))
            note = f"{imports} of them after the import of torch and Lightning"
            what = f"{name}: anonymous memory, batch {self.plan.batch}, MB"
            yield Row(what, peaks, plain, "plain PyTorch, without its workers", more=False, note=note)

    def loading(self) -> Iterator[Row]:
        """Compare everything before the first convolution with the DataLoader of the baseline."""
        plan = self.plan
        skip, steps = plan.loaded
        common = {"batch": plan.batch, "skip": skip}
        ours = partial(self.run, "benchmarks.ours:load", source=asdict(self.source), width=plan.small.width, **common)
        sides: dict[str, Job] = {
            "ours": partial(ours, steps=3 * steps),  # more steps, since they are faster
            "baseline": partial(self.run, "benchmarks.plain:load", folder=str(self.pngs), steps=steps, **common),
        }
        results = self.measure("input", sides, plan.repeats, plan.load_seconds)
        name = "plain DataLoader, 2 workers, with rotation"
        yield Row("input with rotation, images/s", column(results, "ours"), column(results, "baseline"), name)

    def evaluation(self) -> Iterator[Row]:
        """Compare class probabilities of validation images."""
        plan = self.plan
        common = {"width": plan.small.width, "batch": plan.batch}
        ours = {"source": asdict(self.source), "skip": 1, "steps": plan.evaluated, **common}
        plain = {"folder": str(self.pngs), "skip": 2, "steps": 3 * plan.evaluated, **common}
        sides: dict[str, Job] = {
            "ours": partial(self.run, "benchmarks.ours:evaluate", **ours),
            "plain PyTorch": partial(self.run, "benchmarks.plain:evaluate", **plain),
        }
        results = self.measure("evaluation", sides, plan.repeats, plan.evaluate_seconds)
        yield Row("evaluation, images/s", column(results, "ours"), column(results, "plain PyTorch"), "plain PyTorch")

    def save_pixels(self, folder: Path) -> None:
        """Save images for KNN: those of ``--data``, up to the planned counts, or random pixels."""
        queries, references = self.plan.knn
        if self.source.root is None:
            neighbours.save_random(folder, queries, references, self.plan.knn_shape)
            return
        images = splits(self.source)
        train, validation = images["train"], images["validation"]
        pixels = (validation.store.images[:queries], train.store.images[:references])
        neighbours.save(folder, *pixels, train.labels[:references])

    def knn(self, baselines: list[str]) -> Iterator[Row]:
        """Compare exact KNN with the installed baselines: time, labels, memory."""
        folder = self.folder / "knn"
        self.save_pixels(folder)
        common = {"folder": str(folder), "device": self.device}
        sides: dict[str, Job] = {"ours": partial(self.run, "benchmarks.neighbours:ours", **common)}
        for name in baselines:
            if find_spec(neighbours.MODULES[name]) is None:
                self.log(f"KNN: {name} is not installed; skipped")
            else:
                sides[name] = partial(self.run, "benchmarks.neighbours:baseline", name=name, **common)
        results = self.measure("KNN", sides, self.plan.repeats, self.plan.knn_seconds)
        precision = "int8" if "int8" in self.machine["matrix_flop_per_second"] else "fp32"
        queries, references, _ = neighbours.load(str(folder))
        limit = 2 * len(queries) * references.size / self.matrix_rate(precision)
        what = f"KNN, {len(queries):,} × {len(references):,} × {references[0].size:,}, s"
        yield Row(f"{what}: all products at the measured {precision} rate", [limit])
        what += ", random pixels" if self.source.root is None else ""
        ours, labels = column(results, "ours", "seconds"), results["ours"][0]["labels"]
        for name in list(sides)[1:]:
            differing = sum(a != b for a, b in zip(labels, results[name][0]["labels"], strict=True))
            seconds = column(results, name, "seconds")
            yield Row(what, ours, seconds, name, more=False, note=f"{differing} labels differ")
        if self.device == "cpu" and all(column(results, "ours", "peak")):
            peaks, before, held = (megabytes(results, "ours", key) for key in ("peak", "before", "held"))
            imports = number(statistics.median(a - b for a, b in zip(before, held, strict=True)))
            beyond = [a - b for a, b in zip(peaks, held, strict=True)]
            note = f"{imports} of them after the import of torch"
            yield Row("KNN, anonymous memory without the pixels, MB", beyond, note=note)

    def knn_growth(self) -> Iterator[Row]:
        """Time KNN with a growing number of references, which stay in a file; after :meth:`knn`."""
        source, folder = self.folder / "knn", self.folder / "repeated"
        images = neighbours.load(str(source))[0]
        queries = min(self.plan.few_queries, len(images))
        for count in self.plan.reference_counts:
            size = count * images[0].size
            if size > 2**31 and shutil.disk_usage(self.folder).free < 4 * size:
                self.log(f"KNN, {count:,} references: too little disk space; skipped")
                continue
            neighbours.save_repeated(source, folder, queries, count)
            job = partial(self.run, "benchmarks.neighbours:ours", folder=str(folder), mapped=True)
            result = self.measure(f"KNN, {count:,} references", {"ours": job}, 1)["ours"][0]
            cost = result["seconds"] / queries
            note = f"{number(1e6 * cost / count)} µs per pair, {number(result['peak'] / 1e6)} MB anonymous memory"
            yield Row(f"KNN, {count:,} references in a file, s per query", [cost], note=note)
            shutil.rmtree(folder)

    def start_up(self) -> Iterator[Row]:
        """Time the start of ``deepfake_cls.train`` on a tiny data set that is already decoded."""
        folder = self.folder / "start-up"
        folder.mkdir()
        settings = [*TINY_DATA, f'data.cache="{folder / "cache"}"', "trainer.progress=false", "run_dir=run"]
        python = [sys.executable, "-c"]
        train = partial(start, folder, [*python, UNTIL_FIRST_STEP, *settings, "force=true"], STEP_REACHED)
        if self.plan.new_processes:
            train()  # warm-up; it also generates the images
        sides: dict[str, Job] = {
            "import lightning": partial(start, folder, [*python, "import lightning, os; os._exit(0)"]),
            "ours": train,
        }
        results = self.measure("start-up", sides, self.plan.repeats, self.plan.start_seconds)
        ours, imports = (column(results, side, "seconds") for side in ("ours", "import lightning"))
        yield Row("start-up: train to its first step, s", ours, imports, "import lightning", more=False)


def start(folder: Path, command: list[str], reached: str = "") -> dict[str, Any]:
    """Time a command.

    Raises:
        RuntimeError: It failed or did not print ``reached``.
    """
    process = measure.watched(command, folder)
    if process.status != 0 or reached not in process.output:
        raise RuntimeError(f"{' '.join(command)} failed:\n{process.output[-4000:]}")
    return {"seconds": process.seconds}


def column(results: Results, side: str, key: str = "rate") -> list[float]:
    """The values of a side, one per repetition."""
    return [float(result[key]) for result in results[side]]


def megabytes(results: Results, side: str, key: str) -> list[float]:
    """The values of a side in MB, one per repetition."""
    return [value / 1e6 for value in column(results, side, key)]
