from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import gpu, limits, measure, neighbours, plain, speed, startup, table
from benchmarks.measure import ROOT, Stopwatch, alternate, fresh, watched
from benchmarks.ours import training_flops
from benchmarks.plan import QUICK
from benchmarks.samples import Source, splits, write_pngs
from benchmarks.suite import Suite
from benchmarks.table import Row
from deepfake_cls.config import FolderConfig, UnibucConfig
from deepfake_cls.models.resnet import ResidualNet, initialise

TINY = Source(train=40, validation=20, side=32)


class Clock:
    """Time that goes on only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: self.now)

    def take(self, seconds: float) -> float:
        self.now += seconds
        return seconds


# Timing


def test_sides_take_turns() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) or name for name in ("ours", "peer", "other")}  # type: ignore[func-returns-value]
    told: list[tuple[str, str]] = []
    found = alternate(sides, 2, tell=lambda side, result: told.append((side, result)))
    assert calls == ["ours", "peer", "other"] * 2
    assert found == {name: [name, name] for name in ("ours", "peer", "other")}
    assert told == [(name, name) for name in calls]


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (59.9, 1), (60, 2), (89, 2), (90, 3), (1000, 3)])
def test_a_slow_machine_makes_fewer_rounds_but_makes_one(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)  # a round takes 30 seconds
    found = alternate({"ours": lambda: clock.take(10), "peer": lambda: clock.take(20)}, 3, seconds)
    assert found == {"ours": [10] * rounds, "peer": [20] * rounds}


def test_a_job_runs_in_a_process_of_its_own_and_keeps_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in measure.environment()
    found = fresh("json:loads", s='{"a": [1, 2]}')
    assert found.pop("peak") >= 0
    assert found == {"a": [1, 2]}
    code = "import os, benchmarks.measure as m; print(os.getpid(), 0 < m.since_start() < 60)"
    status, output, _, seconds = watched([sys.executable, "-c", code])
    pid, known = output.split()
    assert (status, known, int(pid) != os.getpid(), seconds > 0) == (0, "True", True, True)


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)json:loads failed:.*JSONDecodeError"):
        fresh("json:loads", s="{")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_anonymous_memory_is_seen_and_mapped_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 200_000_000
    (tmp_path / "file").write_bytes(bytes(size))
    seen = measure.anonymous
    ready, done = tmp_path / "ready", tmp_path / "done"

    def anonymous(pid: int | str = "self") -> int:
        there = ready.exists()  # before the memory is read
        found = seen(pid)
        if there:
            done.touch()
        return found

    def peak(code: str) -> int:
        """Of a process that ends only after its memory was read in its last state."""
        ready.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
        wait = f"open({str(ready)!r}, 'w')\nwhile not os.path.exists({str(done)!r}): time.sleep(0.01)"
        return watched([sys.executable, "-c", f"import mmap, os, time\n{code}\n{wait}"])[2]

    monkeypatch.setattr(measure, "anonymous", anonymous)
    held = peak(f"x = b'1' * {size}")
    mapped = peak(f"m = mmap.mmap(open({str(tmp_path / 'file')!r}, 'rb').fileno(), 0, access=1); m.find(b'1')")
    assert size <= held <= size + 50_000_000
    assert 0 < mapped < 50_000_000


def test_a_stopwatch_leaves_the_first_steps_out_and_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    waits: list[float] = []
    watch = Stopwatch(2, 5, lambda: waits.append(clock.now))
    for seconds, images in [(100, 8), (100, 8), (1, 8), (2, 8), (3, 4), (100, 8)]:
        clock.take(seconds)
        watch.step(images)
    assert watch.rate == pytest.approx(20 / 6)
    assert waits == [100, 200, 206]
    with pytest.raises(RuntimeError, match="1 steps were made"):
        short = Stopwatch(1, 3)
        short.step(8)
        _ = short.rate


# The table


def test_a_row_says_how_many_times_better_ours_is() -> None:
    rate = Row("images/s", [90.0, 60.0, 61.0], [20.0, 10.0, 30.0], "peer", target="3×", met=True, limit=122.0)
    time = Row("s", [2.0], [5.0], "peer", more=False, limit=0.5)
    assert (rate.ratio, rate.share) == (61 / 20, 0.5)
    assert (time.ratio, time.share) == (2.5, 0.25)
    assert rate.cells() == ["images/s", "61.0 (60.0 to 90.0)", "20.0 (10.0 to 30.0) (peer)", "3.05×", "3×: met", "50 %"]
    assert Row("alone", [1234.5], note="of 8").cells() == ["alone; of 8", "1,234", "", "", "", ""]
    assert table.markdown([time]).splitlines() == [
        "| what | ours | peer | ratio | target | share of the limit |",
        "| --- | --- | --- | --- | --- | --- |",
        "| s | 2.00 | 5.00 (peer) | 2.50× |  | 25 % |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (9.876, "9.88"), (12.34, "12.3"), (99_999, "99,999")]
)
def test_three_digits(value: float, text: str) -> None:
    assert table.number(value) == text


# The peer


def test_the_plain_network_is_the_same_function() -> None:
    ours = ResidualNet(3, 5, 8).eval()
    initialise(ours, 3)
    theirs = plain.PlainNet(3, 5, 8).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images / 255 * 2 - 1), ours(images), atol=1e-5, rtol=1e-4)
    assert all(weight.is_contiguous() for weight in theirs.parameters())


def test_the_plain_files_hold_the_same_images_and_labels(tmp_path: Path) -> None:
    images = splits(TINY)
    write_pngs(images, tmp_path, 30)
    found = plain.PngFolder(tmp_path / "train", augmented=False)
    assert len(found) == 30
    for index, (path, label) in enumerate(found.files):
        row = int(path.stem)
        pixels, told = found[index]
        assert told == label == images["train"].labels[row]
        expected = torch.from_numpy(np.array(images["train"].store.images[row])).permute(2, 0, 1)
        assert torch.equal(((pixels + 1) * 127.5).round().to(torch.uint8), expected)


def test_plain_cutmix_weighs_labels_by_pixels_on_half_of_the_batches() -> None:
    np.random.seed(0)  # noqa: NPY002
    mixed = 0
    for _ in range(200):
        images = torch.arange(4.0)[:, None, None, None].repeat(1, 3, 20, 30)
        out, others, weight = plain.cutmix(images, torch.arange(4))
        for index in range(4):
            own = float((out[index] == index).float().mean())
            assert own == pytest.approx(1.0 if others[index] == index else weight, abs=1e-6)
        mixed += weight < 1
    assert 60 < mixed < 130


def test_a_folder_is_read_by_its_layout(unibuc_like: Path) -> None:
    assert isinstance(Source(str(unibuc_like)).config(), UnibucConfig)
    assert isinstance(Source(str(unibuc_like / "train")).config(), FolderConfig)


# Limits


def test_operations_are_those_that_the_layers_make() -> None:
    # Counted again from what flows through each layer.
    network, total = ResidualNet(3, 5, 8).eval(), 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += 2 * output.numel() * weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, 40, 40, dtype=torch.uint8))
    assert training_flops(8, 3, 5, 40, 40) == 3 * total
    assert training_flops(64, 4, 5, 100, 100) == pytest.approx(24.4e9, rel=0.005)


def test_all_kernels_are_timed_and_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def best(call: Callable[[], object], repeats: int, wait: Callable[[], object]) -> float:
        call()
        timed.append(repeats)
        return 0.5

    monkeypatch.setattr(limits, "best", best)
    found = limits.kernels(width=8, batch=4, side=32, repeats=7)
    assert found["rate"] == 4 / (0.5 * 16)  # convolutions: the stem, 12 in six blocks, 3 on skips
    # As many batch normalisations, 13 ReLUs (the stem, two in each block), 6 additions.
    assert found["all_rate"] == 4 / (0.5 * (16 + 16 + 13 + 6))
    assert timed == [7] * 51


# Neighbours


@pytest.mark.parametrize("name", ["scikit-learn", "FAISS", "torch.cdist"])
def test_peers_and_oracle_find_the_same_labels(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"scikit-learn": "sklearn", "FAISS": "faiss", "torch.cdist": "torch"}[name])
    pixels = neighbours.random_pixels(tmp_path, 30, 400, (5, 10, 1))
    given = dataclasses.asdict(pixels)
    ours = neighbours.ours(given)
    assert ours["held"] == 430 * 50
    assert neighbours.ours(given, mapped=True)["held"] == 0
    assert neighbours.peer(given, name)["labels"] == ours["labels"]
    assert neighbours.oracle(given, 30)["labels"] == ours["labels"]


def test_a_peer_that_is_not_installed_is_left_out_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(job: str, **arguments: Any) -> dict[str, Any]:
        name = job.removeprefix("benchmarks.neighbours:")
        return {**getattr(neighbours, name)(**arguments), "peak": 0}

    monkeypatch.setattr("benchmarks.suite.fresh", here)
    monkeypatch.setattr("benchmarks.suite.find_spec", lambda name: None if name == "faiss" else name)
    said: list[str] = []
    suite = Suite(QUICK, None, tmp_path, said.append)
    suite.machine = {"matrix_flop_per_second": {"fp32": {"64": 1e9}}}
    rows = list(suite.knn())
    assert [row.peer_name for row in rows] == ["", "scikit-learn", "torch.cdist", ""]
    assert said[0] == "nearest neighbours: FAISS is not installed and is left out"
    assert rows[0].ours == [pytest.approx(2 * 20 * 200 * 300 / 1e9)]
    assert (rows[-1].ours, rows[-1].met) == ([0], True)


def test_more_references_are_the_same_again(tmp_path: Path) -> None:
    pixels = neighbours.random_pixels(tmp_path, 4, 10, (1, 2, 3))
    _, references, labels = pixels.open()
    _, more, more_labels = neighbours.repeated(pixels, tmp_path, 2, 25).open()
    assert np.array_equal(more, np.concatenate([references, references, references[:5]]))
    assert np.array_equal(more_labels, np.concatenate([labels, labels, labels[:5]]))


# Start-up


@pytest.mark.parametrize("name", [pytest.param("train", marks=pytest.mark.slow), "report"])
def test_a_start_that_ends_early_is_no_measurement(name: str, tmp_path: Path) -> None:
    command = startup.commands(tmp_path)[name]
    with pytest.raises(RuntimeError, match="failed"):
        startup.run(tmp_path, [*command, "--help"])


def test_a_report_without_records_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    with pytest.raises(RuntimeError, match="failed"):
        startup.run(tmp_path, startup.commands(tmp_path)["report"])


# All of it


def test_too_few_images_are_refused_at_once(unibuc_like: Path) -> None:
    words = ["-m", "benchmarks.speed", "--quick", "--data", str(unibuc_like)]
    status, output, _, _ = watched([sys.executable, *words])
    assert status == 1
    assert output.strip().splitlines()[-1].endswith("30 training images; 32 are needed.")


@pytest.mark.slow
def test_the_whole_suite(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", "--quick", "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "quick.json").read_text())
    for name in ("date", "device", "threads", "precision", "versions", "git"):
        assert name in found
    assert {"torch", "lightning", "scikit-learn", "faiss-cpu"} <= found["versions"].keys()
    whats = " ".join(row["what"] for row in found["rows"])
    for word in ("limit", "small network", "reference network", "input", "evaluation", "KNN", "start-up", "embedded"):
        assert word in whats
    for row in found["rows"]:
        assert all(value >= 0 for value in row["ours"] + row["peer"])
        assert (row["met"] is None) == (row["target"] == "")
    assert next(row for row in found["rows"] if "int64" in row["what"])["ours"] == [0]
    text = (tmp_path / "out" / "quick.md").read_text()
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + len(found["rows"])
    assert str(tmp_path) not in text


@pytest.mark.slow
def test_the_gpu_suite_on_a_cpu(tmp_path: Path) -> None:
    words = ["--quick", "--device", "cpu", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_quick.json").read_text())
    ours = found["training"]["batch 8"]["ours"][0]
    assert ours["epoch_seconds"] == pytest.approx(12_500 / ours["rate"])
    limit = max(found["limits"]["flop_per_second"].values())
    assert ours["share"] == pytest.approx(ours["rate"] * ours["flops"] / limit)
    assert ours["first_step"] > 0
    assert found["best_batch"] == 16
    assert found["ratios"].keys() == {"batch 8", "batch 16", "knn"}
    assert found["knn_labels_differing"] == 0


@pytest.mark.slow
def test_the_gpu_suite_needs_no_hydra(tmp_path: Path) -> None:
    # Every job of it in one process, which then must not have imported Hydra.
    code = f"""
import sys
from dataclasses import asdict
from pathlib import Path
from benchmarks import gpu, neighbours, plain
from benchmarks.samples import splits, write_pngs
source, folder = gpu.QUICK.embedded, Path({str(tmp_path)!r})
write_pngs(splits(source), folder / "pngs", 40)
gpu.limits("cpu", [64])
gpu.train(asdict(source), 8, 20, 2, "cpu")
plain.train(str(folder / "pngs"), 8, 20, 1, 2, workers=0)
pixels = asdict(neighbours.random_pixels(folder, 2, 20, (2, 4, 1)))
neighbours.ours(pixels), neighbours.peer(pixels, "torch.cdist")
print("found", sorted({{"hydra", "omegaconf"}} & sys.modules.keys()))
"""
    status, output, _, _ = watched([sys.executable, "-c", code])
    assert status == 0, output
    assert "found []" in output


def test_the_gpu_suite_records_what_does_not_fit_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh(job: str, **arguments: Any) -> dict[str, Any]:
        if job.endswith(":limits"):
            return {"flop_per_second": {"64": 1e9}}
        if "neighbours" in job:
            return {"seconds": 1.0, "labels": [0]}
        if arguments["batch"] > 8:
            raise RuntimeError(f"{job} failed:\ntorch.OutOfMemoryError: CUDA out of memory.")
        return {"rate": 100.0, "first_step": 1.0, "flops": 1e6}

    monkeypatch.setattr(gpu, "fresh", fresh)
    found = gpu.measure(gpu.QUICK, None, "cpu", tmp_path)
    assert found["training"]["batch 16"] == {"ours": [{"out_of_memory": True}]}
    assert found["training"]["batch 8"]["ours"][0]["rate"] == 100
    assert found["best_batch"] == 8
    assert found["ratios"] == {"batch 8": 1.0, "knn": 1.0}

    def broken(job: str, **arguments: Any) -> dict[str, Any]:
        if job.endswith(":train"):
            raise RuntimeError(f"{job} failed:\nZeroDivisionError")
        return fresh(job, **arguments)

    monkeypatch.setattr(gpu, "fresh", broken)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        gpu.measure(gpu.QUICK, None, "cpu", tmp_path / "again")


def test_results_of_unlike_cpus_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for capability, bf16 in (("AVX512", True), ("AVX512", False), ("AVX2", False), ("NO AVX", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        monkeypatch.setattr(speed, "cpu_has_bf16", lambda found=bf16: found)
        names |= {speed.file_name("given"), speed.file_name("embedded")}
    assert len(names) == 8
    assert {"speed_avx512_bf16", "speed_avx2_embedded", "speed_no_avx"} <= names
