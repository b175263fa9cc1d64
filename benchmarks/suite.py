"""The comparisons: what is run, how often, and the rows that come of it."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import neighbours, startup
from benchmarks.measure import alternate, fresh
from benchmarks.plan import Plan
from benchmarks.samples import splits, write_pngs
from benchmarks.table import Row, number
from deepfake_cls.errors import InputError

CONVOLUTIONS = "its convolutions alone"
KERNELS = "all of torch's kernels, one by one"
Job = Callable[[], dict[str, Any]]
Found = dict[str, list[dict[str, Any]]]


def aimed(row: Row, times: float) -> Row:
    """The row with a target for its ratio."""
    assert row.ratio is not None
    return replace(row, target=f"{times:g}×", met=row.ratio >= times)


def at_most(row: Row, most: float, words: str) -> Row:
    """The row with an upper bound for its median as target."""
    return replace(row, more=False, target=words, met=statistics.median(row.ours) <= most)


class Suite:
    """All comparisons, in order; each hands out its rows.

    Args:
        plan: Sizes and counts.
        root: Folder of the images; None takes the embedded data, and random pixels for the neighbours.
        folder: For all files.
        tell: Called with a line of text after each measurement.
    """

    def __init__(self, plan: Plan, root: str | None, folder: Path, tell: Callable[[str], None]) -> None:
        self.plan, self.folder, self.tell = plan, folder, tell
        self.source = replace(plan.embedded, root=root)
        self.pngs = folder / "pngs"
        self.machine: dict[str, Any] = {}
        self.side = plan.embedded.side  # of an image, in pixels
        self.raw: dict[str, Found] = {}
        self.rates: list[float] = []  # images/s of our training, small network

    def sections(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """The comparisons by name, in the order in which they are to be made."""
        return {
            "limits": self.limits,
            "training, small network": self.small,
            "training, reference network": self.reference,
            "input": self.loading,
            "evaluation": self.evaluation,
            "nearest neighbours": self.knn,
            "nearest neighbours, more images": self.line,
            "start-up": self.starting,
            "embedded data": self.drawing,
        }

    def take(self, name: str, sides: dict[str, Job], repeats: int, seconds: float, shown: str = "rate") -> Found:
        """Measure sides in turn, say so, and keep all that they return."""

        def tell(side: str, result: dict[str, Any]) -> None:
            values = [f"{key} {number(value)}" for key, value in result.items() if key in shown.split()]
            self.tell(f"{name}: {side} {', '.join(values)}")

        self.raw[name] = alternate(sides, repeats, seconds, tell)
        return self.raw[name]

    def rate_of(self, kind: str) -> float:
        """The best FLOP a second of matrix products of a kind."""
        return float(max(self.machine["matrix_flop_per_second"][kind].values()))

    def limits(self) -> Iterator[Row]:
        """What the machine allows; also prepares the images of both sides.

        Raises:
            InputError: There are too few images, or bad ones.
        """
        plan = self.plan
        images = splits(self.source)
        least = plan.batch * max(plan.small[2], plan.loaded[1])
        if len(images["train"]) < least:
            raise InputError(f"--data {self.source.root}: {len(images['train'])} training images; {least} are needed.")
        self.side = images["train"].store.size[0]
        self.machine = fresh("benchmarks.limits:job", sizes=plan.matrices, copied=plan.copied, repeats=3)
        for kind in self.machine["matrix_flop_per_second"]:
            yield Row(f"limit: {kind} matrix product, GFLOP/s", [self.rate_of(kind) / 1e9])
        yield Row("limit: copy, GB/s read and written", [self.machine["copy_bytes_per_second"] / 1e9])
        self.tell("limits: " + ", ".join(f"{k} {number(self.rate_of(k) / 1e9)} GFLOP/s" for k in self._kinds()))
        write_pngs(images, self.pngs, plan.pngs)

    def _kinds(self) -> list[str]:
        return [*self.machine["matrix_flop_per_second"]]

    def _training(self, name: str, sizes: tuple[int, int, int], sides: list[str], repeats: int, most: float) -> Found:
        width, skip, steps = sizes
        common = {"width": width, "batch": self.plan.batch, "skip": skip, "steps": steps}
        png = {"folder": str(self.pngs), **common}
        jobs: dict[str, Job] = {
            "ours": partial(fresh, "benchmarks.ours:train", source=asdict(self.source), **common),
            "plain PyTorch": partial(fresh, "benchmarks.plain:train", **png),
            "plain Lightning": partial(fresh, "benchmarks.plain:train_lightning", **png),
        }
        return self.take(name, {side: jobs[side] for side in ["ours", *sides]}, repeats, most)

    def _training_limit(self, found: Found) -> tuple[float, float]:
        """What the matrix rate allows in images/s, and operations for an image."""
        flops = float(found["ours"][0]["flops"])
        return self.rate_of("bf16" if self.machine["precision"] == "bf16-mixed" else "fp32") / flops, flops

    def _of_kernels(self, name: str, width: int, rates: list[float]) -> Iterator[Row]:
        """How near training comes to what torch's kernels take by themselves."""
        size = {"width": width, "batch": self.plan.batch, "side": self.side, "repeats": 2}
        sides: dict[str, Job] = {CONVOLUTIONS: partial(fresh, "benchmarks.limits:kernels", **size)}
        found = self.take(f"{name}, limit", sides, 2, 60, "rate all_rate")
        row = Row(f"{name}, images/s", rates, column(found, CONVOLUTIONS), CONVOLUTIONS)
        yield replace(row, target="85 % of its convolutions", met=(row.ratio or 0) >= 0.85)
        yield Row(f"{name}, images/s", rates, column(found, CONVOLUTIONS, "all_rate"), KERNELS)

    def small(self) -> Iterator[Row]:
        """The small network against both plain recipes, and memory."""
        plan, name = self.plan, "training, small network"
        found = self._training(name, plan.small, ["plain PyTorch", "plain Lightning"], plan.repeats, plan.small_seconds)
        self.rates = column(found, "ours")
        limit, _ = self._training_limit(found)
        for peer in ("plain PyTorch", "plain Lightning"):
            yield aimed(Row(f"{name}, images/s", self.rates, column(found, peer), peer, limit=limit), 3)
        yield from self._of_kernels(name, plan.small[0], self.rates)
        peaks = [result["peak"] / 1e6 for result in found["ours"]]
        theirs = [result["peak"] / 1e6 for result in found["plain PyTorch"]]
        if all(peaks):
            imports = number(statistics.median(result["before"] for result in found["ours"]) / 1e6)
            row = Row(
                f"{name}: anonymous memory, batch {plan.batch}, MB",
                peaks,
                theirs,
                "plain PyTorch, without its workers",
                more=False,
                note=f"{imports} of them once torch and Lightning are imported",
            )
            yield at_most(row, 1200, "1.2 GB")

    def reference(self) -> Iterator[Row]:
        """The reference network against plain PyTorch, and against the hardware."""
        plan, name = self.plan, "training, reference network"
        found = self._training(name, plan.reference, ["plain PyTorch"], plan.reference_repeats, plan.reference_seconds)
        limit, flops = self._training_limit(found)
        row = Row(f"{name}, images/s", column(found, "ours"), column(found, "plain PyTorch"), "plain PyTorch")
        yield aimed(replace(row, limit=limit), 3)
        yield from self._of_kernels(name, plan.reference[0], column(found, "ours"))
        done = [rate * flops / 1e9 for rate in row.ours]
        row = Row(f"{name}, GFLOP/s", done, limit=limit * flops / 1e9, note=f"{flops / 1e9:.2f} GFLOP an image")
        yield replace(row, target="85 % of the matrix rate", met=(row.share or 0) >= 0.85)

    def loading(self) -> Iterator[Row]:
        """What happens before the first convolution, against the plain recipe's DataLoader."""
        plan = self.plan
        skip, steps = plan.loaded
        common = {"batch": plan.batch, "skip": skip}
        ours = partial(fresh, "benchmarks.ours:load", source=asdict(self.source), width=plan.small[0])
        sides: dict[str, Job] = {
            "ours": partial(ours, steps=3 * steps, **common),  # more steps, since they take less time
            "plain DataLoader": partial(fresh, "benchmarks.plain:load", folder=str(self.pngs), steps=steps, **common),
        }
        found = self.take("input", sides, plan.repeats, plan.load_seconds, "rate rotation flip")
        theirs, peer = column(found, "plain DataLoader"), "plain DataLoader, 2 workers, with rotation"
        rotated = column(found, "ours", "rotation")
        yield aimed(Row("input with rotation, images/s", rotated, theirs, peer), 5)
        yield aimed(Row("input, flips and CutMix alone, images/s", column(found, "ours", "flip"), theirs, peer), 15)
        shares = [100 * statistics.median(self.rates) / rate for rate in rotated]
        yield at_most(Row("input with rotation, % of a training step, small network", shares), 5, "below 5 %")

    def evaluation(self) -> Iterator[Row]:
        """Class probabilities, with and without TTA."""
        plan = self.plan
        width, batches = plan.small[0], plan.evaluated
        common = {"width": width, "batch": plan.batch}
        sides: dict[str, Job] = {
            "ours": partial(
                fresh, "benchmarks.ours:evaluate", source=asdict(self.source), skip=1, steps=batches, **common
            ),
            "plain PyTorch": partial(
                fresh, "benchmarks.plain:evaluate", folder=str(self.pngs), skip=2, steps=3 * batches, **common
            ),
        }
        found = self.take("evaluation", sides, plan.repeats, plan.evaluate_seconds, "rate none flip")
        ours, flipped = column(found, "ours", "none"), column(found, "ours", "flip")
        yield Row("evaluation, images/s", ours, column(found, "plain PyTorch"), "plain PyTorch")
        yield aimed(Row("evaluation, images/s", ours, self.rates, "our training"), 2)
        row = Row("evaluation, times as long with flip TTA", [a / b for a, b in zip(ours, flipped, strict=True)])
        yield at_most(row, 2, "at most 2×")

    @cached_property
    def pixels(self) -> neighbours.Pixels:
        """Images for the neighbours: of those that were given as many as the plan says, or else random ones."""
        queries, references = self.plan.knn
        if self.source.root is None:
            return neighbours.random_pixels(self.folder, queries, references, self.plan.knn_shape)
        images = splits(self.source)
        file = self.folder / "labels.i64"
        images["train"].labels.tofile(file)
        files = {name: str(split.store.images.filename) for name, split in images.items()}  # type: ignore[attr-defined]
        return neighbours.Pixels(
            files["validation"],
            min(queries, len(images["validation"])),
            files["train"],
            min(references, len(images["train"])),
            str(file),
            images["train"].store.images.shape[1:],
        )

    def knn(self) -> Iterator[Row]:
        """Exact neighbours against others, label by label, and memory."""
        plan = self.plan
        pixels = asdict(self.pixels)
        modules = {"scikit-learn": "sklearn", "FAISS": "faiss", "torch.cdist": "torch"}
        peers = [name for name, module in modules.items() if find_spec(module) is not None]
        for name in sorted(modules.keys() - peers):
            self.tell(f"nearest neighbours: {name} is not installed and is left out")
        sides: dict[str, Job] = {"ours": partial(fresh, "benchmarks.neighbours:ours", pixels=pixels)}
        for name in peers:
            sides[name] = partial(fresh, "benchmarks.neighbours:peer", pixels=pixels, name=name)
        found = self.take("nearest neighbours", sides, plan.repeats, plan.knn_seconds, "seconds")
        exact = fresh("benchmarks.neighbours:oracle", pixels=pixels, most=plan.oracle)["labels"]
        labels = found["ours"][0]["labels"]
        wrong = differing(labels[: len(exact)], exact)
        ours = column(found, "ours", "seconds")
        size = self.pixels
        kind = "int8" if "int8" in self._kinds() else "fp32"
        limit = 2 * size.query_count * size.reference_count * size.values / self.rate_of(kind)
        what = f"KNN, {size.query_count:,} × {size.reference_count:,} × {size.values:,}, s"
        yield Row(f"{what}: all products at the measured {kind} rate", [limit])
        if self.source.root is None:
            what = f"{what}, random pixels"
        else:
            noise = self._noise()
            row = Row(f"{what}: the same of random pixels, where no bound helps", noise, more=False)
            yield replace(row, limit=limit)
        for name, times in {"scikit-learn": 10, "FAISS": 5, "torch.cdist": 8}.items():
            if name in peers:
                note = f"{differing(labels, found[name][0]['labels'])} labels differ"
                row = Row(what, ours, column(found, name, "seconds"), name, more=False, note=note)
                yield aimed(row, times)
        row = Row("KNN, labels other than by differences in int64", [wrong], note=f"of {len(exact)} images")
        yield at_most(row, 0, "0")
        if all(result["peak"] for result in found["ours"]):
            beyond = [(result["peak"] - result["held"]) / 1e6 for result in found["ours"]]
            torch = [(result["before"] - result["held"]) / 1e6 for result in found["ours"]]
            note = f"{number(statistics.median(torch))} of them once torch is imported"
            yield at_most(Row("KNN, anonymous memory beyond the pixels, MB", beyond, note=note), 300, "300 MB")
            beyond = [a - b for a, b in zip(beyond, torch, strict=True)]
            yield Row("KNN, anonymous memory beyond the pixels and torch, MB", beyond)

    def _noise(self) -> list[float]:
        """Seconds of the neighbours among as many random pixels."""
        folder = self.folder / "noise"
        folder.mkdir()
        size = self.pixels
        pixels = neighbours.random_pixels(folder, size.query_count, size.reference_count, size.shape)
        sides: dict[str, Job] = {"ours": partial(fresh, "benchmarks.neighbours:ours", pixels=asdict(pixels))}
        return column(self.take("nearest neighbours, random pixels", sides, 1, 0, "seconds"), "ours", "seconds")

    def line(self) -> Iterator[Row]:
        """Neighbours among more and more images, which lie in a file."""
        for count in self.plan.line:
            size = count * self.pixels.values
            if size > 2**31 and room(self.folder) < 4 * size:
                self.tell(f"nearest neighbours among {count:,} images: left out, they need more room on the disk")
                continue
            pixels = neighbours.repeated(
                self.pixels, self.folder, min(self.plan.line_queries, self.pixels.query_count), count
            )
            name = f"nearest neighbours among {count:,}"
            sides: dict[str, Job] = {
                "ours": partial(fresh, "benchmarks.neighbours:ours", pixels=asdict(pixels), mapped=True)
            }
            result = self.take(name, sides, 1, 0, "seconds")["ours"][0]
            cost = result["seconds"] / pixels.query_count
            note = f"{number(1e6 * cost / count)} µs a pair, {number(result['peak'] / 1e6)} MB anonymous memory"
            yield Row(f"KNN among {count:,} images in a file, s an image", [cost], note=note)

    def starting(self) -> Iterator[Row]:
        """From the start of a process."""
        plan, folder = self.plan, self.folder / "start-up"
        folder.mkdir()
        startup.prepare(folder)
        commands = startup.commands(folder)
        for command in commands.values() if plan.warm else ():
            startup.run(folder, command)
        sides: dict[str, Job] = {name: partial(_seconds, folder, command) for name, command in commands.items()}
        found = self.take("start-up", sides, plan.repeats, plan.start_seconds, "seconds")
        lightning = column(found, "import lightning", "seconds")
        row = Row("start-up: train until its first step, s", column(found, "train", "seconds"), lightning, more=False)
        row = replace(row, peer_name="import lightning")
        yield at_most(row, statistics.median(lightning) + 2, "import of Lightning + 2 s")
        for name, words in {
            "knn": "knn, a whole run",
            "report": "report until it has read the records",
            "report --help": "report --help",
        }.items():
            yield at_most(Row(f"start-up: {words}, s", column(found, name, "seconds")), 3, "3 s")
        yield Row("report, the whole page with its figures, s", column(found, "page", "seconds"))

    def drawing(self) -> Iterator[Row]:
        """Images of the embedded data."""
        sides: dict[str, Job] = {"ours": partial(fresh, "benchmarks.drawing:job", count=self.plan.drawn, workers=2)}
        rates = column(self.take("embedded data", sides, 1, 0), "ours")
        row = Row("embedded data, images/s drawn by two processes", rates)
        yield replace(row, target="80", met=rates[0] >= 80)


def column(found: Found, side: str, key: str = "rate") -> list[float]:
    """A side's figures."""
    return [float(result[key]) for result in found[side]]


def differing(first: list[int], second: list[int]) -> int:
    """How many labels differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))


def room(folder: Path) -> int:
    """Free bytes on the disk."""
    return shutil.disk_usage(folder).free


def _seconds(folder: Path, command: list[str]) -> dict[str, Any]:
    return {"seconds": startup.run(folder, command)}
