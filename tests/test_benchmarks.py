from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import gpu, limits, measure, neighbours, plain, speed, table
from benchmarks.measure import Stopwatch, alternate, in_new_process, watched
from benchmarks.ours import training_flops
from benchmarks.samples import Source, splits, write_pngs
from benchmarks.suite import QUICK, STEP_REACHED, Suite, start
from benchmarks.table import Row
from deepfake_cls.config import FolderConfig, UnibucConfig
from deepfake_cls.models.resnet import ResidualNet

TINY = Source(train=40, validation=20, side=32)


class Clock:
    """A clock that only `pass_time` advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("benchmarks.measure.time.perf_counter", lambda: self.now)

    def pass_time(self, seconds: float) -> float:
        self.now += seconds
        return seconds


# Timing


def test_sides_alternate() -> None:
    calls: list[str] = []
    names = ("ours", "first", "second")
    sides = {name: lambda name=name: calls.append(name) or name for name in names}  # type: ignore[func-returns-value]
    logged: list[tuple[str, str]] = []
    results = alternate(sides, 2, log=lambda side, result: logged.append((side, result)))
    assert calls == [*names, *names]
    assert results == {name: [name, name] for name in names}
    assert logged == [(name, name) for name in calls]


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (59.9, 1), (60, 2), (89, 2), (90, 3), (1000, 3)])
def test_a_time_budget_reduces_the_rounds_to_one_at_least(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)  # a round takes 30 seconds
    results = alternate({"ours": lambda: clock.pass_time(10), "other": lambda: clock.pass_time(20)}, 3, seconds)
    assert results == {"ours": [10] * rounds, "other": [20] * rounds}


def test_a_job_runs_in_a_new_process_that_writes_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in measure.environment()
    result = in_new_process("json:loads", s='{"a": [1, 2]}')
    assert result.pop("peak") >= 0
    assert result == {"a": [1, 2]}
    code = "import os, benchmarks.measure as m"
    code += "; print(os.getpid(), 0 < m.seconds_since_start() < 60, m.STARTED in os.environ)"
    process = watched([sys.executable, "-c", code])
    pid, *checks = process.output.split()
    assert (process.status, checks, int(pid) != os.getpid()) == (0, ["True", "True"], True)
    assert process.seconds > 0


def test_the_error_of_a_failed_job_contains_its_output() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)json:loads failed:.*JSONDecodeError"):
        in_new_process("json:loads", s="{")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux reports it")
def test_anonymous_memory_counts_no_mapped_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 200_000_000
    (tmp_path / "file").write_bytes(bytes(size))
    read_memory = measure.anonymous_memory
    ready, done = tmp_path / "ready", tmp_path / "done"

    def anonymous_memory(pid: int | str = "self") -> int:
        in_last_state = ready.exists()  # before the memory is read
        memory = read_memory(pid)
        if in_last_state:
            done.touch()
        return memory

    def peak(code: str) -> int:
        """Peak of a process that ends only after its memory was read in its last state."""
        ready.unlink(missing_ok=True)
        done.unlink(missing_ok=True)
        wait = f"open({str(ready)!r}, 'w')\nwhile not os.path.exists({str(done)!r}): time.sleep(0.01)"
        return watched([sys.executable, "-c", f"import mmap, os, time\n{code}\n{wait}"]).peak

    monkeypatch.setattr(measure, "anonymous_memory", anonymous_memory)
    allocated = peak(f"x = b'1' * {size}")
    mapped = peak(f"m = mmap.mmap(open({str(tmp_path / 'file')!r}, 'rb').fileno(), 0, access=1); m.find(b'1')")
    assert size <= allocated <= size + 50_000_000
    assert 0 < mapped < 50_000_000


def test_a_stopwatch_skips_warm_up_and_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    waits: list[float] = []
    watch = Stopwatch(2, 5, lambda: waits.append(clock.now))
    for seconds, images in [(100, 8), (100, 8), (1, 8), (2, 8), (3, 4), (100, 8)]:
        clock.pass_time(seconds)
        watch.step(images)
    assert watch.rate == pytest.approx(20 / 6)
    assert waits == [100, 200, 206]
    with pytest.raises(RuntimeError, match="1 steps were made"):
        short = Stopwatch(1, 3)
        short.step(8)
        _ = short.rate


# The table


def test_cells_and_ratios_of_a_row() -> None:
    rate = Row("images/s", [90.0, 60.0, 61.0], [20.0, 10.0, 30.0], "plain", limit=122.0)
    time = Row("s", [2.0], [5.0], "plain", more=False, limit=0.5)
    assert (rate.ratio, rate.share) == (61 / 20, 0.5)
    assert (time.ratio, time.share) == (2.5, 0.25)
    assert rate.cells() == ["images/s", "61.0 (60.0 to 90.0)", "20.0 (10.0 to 30.0) (plain)", "3.05×", "50 %"]
    assert Row("alone", [1234.5], note="of 8").cells() == ["alone; of 8", "1,234", "", "", ""]
    result = {"device": "CPU", "threads": 2, "precision": "32-true", "versions": {"torch": "2"}, "data": "embedded"}
    result |= {"git": {"sha": None, "dirty": False}, "date": "2026-01-01T00:00", "rows": [time.as_json()]}
    text = table.markdown(result)
    assert text.startswith("CPU, 2 threads, 32-true; torch 2; images: embedded; 2026-01-01, commit unknown.")
    assert text.splitlines()[-3:] == [
        "| measurement | ours | baseline | ratio | share of the limit |",
        "| --- | --- | --- | --- | --- |",
        "| s | 2.00 | 5.00 (plain) | 2.50× | 25 % |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (9.876, "9.88"), (12.34, "12.3"), (99_999, "99,999")]
)
def test_three_digits(value: float, text: str) -> None:
    assert table.number(value) == text


@pytest.mark.parametrize("file", sorted(speed.RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_committed_tables_are_rendered_from_their_json(file: Path) -> None:
    assert file.with_suffix(".md").read_text() == table.markdown(json.loads(file.read_text()))


def test_rows_are_appended_below_one_header(tmp_path: Path) -> None:
    for value in (1, 2):
        table.append_csv(tmp_path / "rows.csv", [{"what": "a, b", "value": value}])
    assert (tmp_path / "rows.csv").read_text() == 'what,value\n"a, b",1\n"a, b",2\n'


# The baselines


def test_the_plain_network_computes_the_same_logits() -> None:
    ours = ResidualNet(3, 5, 8).eval()
    ours.initialise(3)
    theirs = plain.PlainNet(3, 5, 8).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images / 255 * 2 - 1), ours(images), atol=1e-5, rtol=1e-4)
    assert all(weight.is_contiguous() for weight in theirs.parameters())


def test_the_png_files_contain_the_same_images_and_labels(tmp_path: Path) -> None:
    images = splits(TINY)
    write_pngs(images, tmp_path, 30)
    folder = plain.PngFolder(tmp_path / "train", augmented=False)
    assert len(folder) == 30
    for index, (path, label) in enumerate(folder.files):
        row = int(path.stem)
        pixels, file_label = folder[index]
        assert file_label == label == images["train"].labels[row]
        expected = torch.from_numpy(np.array(images["train"].store.images[row])).permute(2, 0, 1)
        assert torch.equal(((pixels + 1) * 127.5).round().to(torch.uint8), expected)


def test_plain_cutmix_weights_labels_by_pixels_in_half_of_the_batches() -> None:
    np.random.seed(0)  # noqa: NPY002
    mixed = 0
    for _ in range(200):
        images = torch.arange(4.0)[:, None, None, None].repeat(1, 3, 20, 30)
        out, others, weight = plain.cutmix(images, torch.arange(4))
        for index in range(4):
            unmixed = float((out[index] == index).float().mean())
            assert unmixed == pytest.approx(1.0 if others[index] == index else weight, abs=1e-6)
        mixed += weight < 1
    assert 60 < mixed < 130


def test_the_layout_of_a_folder_selects_its_data_group(unibuc_like: Path) -> None:
    assert isinstance(Source(str(unibuc_like)).config(), UnibucConfig)
    assert isinstance(Source(str(unibuc_like / "train")).config(), FolderConfig)


# Limits


def test_training_flops_equal_a_count_from_the_layers_outputs() -> None:
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


def test_each_kernel_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def best(call: Callable[[], object], repeats: int) -> float:
        call()
        timed.append(repeats)
        return 0.5

    monkeypatch.setattr(limits, "best", best)
    rates = limits.kernels(width=8, batch=4, side=32, repeats=7)
    assert rates["rate"] == 4 / (0.5 * 16)  # convolutions: the stem, 12 in six blocks, 3 on skips
    # And 16 batch normalisations, 13 ReLUs (the stem, two in each block), 6 additions.
    assert rates["all_rate"] == 4 / (0.5 * (16 + 16 + 13 + 6))
    assert timed == [7] * 51


# KNN


@pytest.mark.parametrize("name", ["scikit-learn", "FAISS", "torch.cdist"])
def test_baselines_and_ours_predict_the_labels_of_an_int64_reference(name: str, tmp_path: Path) -> None:
    pytest.importorskip(neighbours.MODULES[name])
    folder = str(tmp_path / "pixels")
    neighbours.save_random(Path(folder), 30, 400, (5, 10, 1))
    queries, references, labels = (array.astype(np.int64) for array in neighbours.load(folder))
    distances = ((queries[:, None] - references) ** 2).sum(axis=(2, 3, 4))
    nearest = labels[distances.argsort(axis=1, kind="stable")[:, : neighbours.K]]
    expected = [int(np.bincount(row).argmax()) for row in nearest]

    ours = neighbours.ours(folder)
    assert ours["labels"] == expected
    assert ours["held"] == 430 * 50
    assert neighbours.ours(folder, mapped=True)["held"] == 0
    assert neighbours.baseline(folder, name)["labels"] == expected


def test_a_baseline_that_is_not_installed_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.suite.find_spec", lambda name: None if name == "faiss" else name)
    lines: list[str] = []
    suite = Suite(QUICK, None, tmp_path, lines.append)
    suite.machine = {"matrix_flop_per_second": {"fp32": {"64": 1e9}}}
    rows = list(suite.knn(["scikit-learn", "FAISS", "torch.cdist"]))
    assert [row.peer_name for row in rows[:3]] == ["", "scikit-learn", "torch.cdist"]
    assert [row.note for row in rows[1:3]] == ["0 labels differ"] * 2
    assert lines[0] == "KNN: FAISS is not installed; skipped"
    assert rows[0].ours == [pytest.approx(2 * 20 * 200 * 300 / 1e9)]


def test_repeated_references(tmp_path: Path) -> None:
    neighbours.save_random(tmp_path / "pixels", 4, 10, (1, 2, 3))
    queries, references, labels = neighbours.load(str(tmp_path / "pixels"))
    neighbours.save_repeated(tmp_path / "pixels", tmp_path / "repeated", 2, 25)
    first_queries, more_references, more_labels = neighbours.load(str(tmp_path / "repeated"))
    assert np.array_equal(first_queries, queries[:2])
    assert np.array_equal(more_references, np.concatenate([references, references, references[:5]]))
    assert np.array_equal(more_labels, np.concatenate([labels, labels, labels[:5]]))


# Complete runs


@pytest.mark.slow
def test_a_start_that_ends_before_its_first_step_is_an_error(tmp_path: Path) -> None:
    for code in ("print('another line')", f"raise SystemExit({STEP_REACHED!r})"):
        with pytest.raises(RuntimeError, match="failed"):
            start(tmp_path, [sys.executable, "-c", code], STEP_REACHED)


def test_too_few_images_are_refused(unibuc_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--quick", "--data", str(unibuc_like)])
    with pytest.raises(SystemExit, match=r"^error: --data .*: 30 training images; 32 are needed\.$"):
        speed.main()


@pytest.mark.slow
def test_the_complete_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # faster beside other tests
    images, output = tmp_path / "images", tmp_path / "out"
    write_pngs(splits(TINY), images, 40)
    arguments = ["--quick", "--data", str(images), "--output", str(output)]
    process = watched([sys.executable, "-m", "benchmarks.speed", *arguments])
    assert process.status == 0, process.output
    result = json.loads((output / "quick.json").read_text())
    for name in ("date", "device", "threads", "precision", "git"):
        assert name in result
    assert {"torch", "lightning", "scikit-learn"} <= result["versions"].keys()
    names = " ".join(row["what"] for row in result["rows"])
    for name in ("limit", "small network", "reference network", "input", "evaluation", "KNN", "start-up"):
        assert name in names
    for row in result["rows"]:
        assert all(value > 0 for value in row["ours"] + row["peer"])
    assert result["data"] == "given"
    assert any(row["note"] == "0 labels differ" for row in result["rows"])
    assert not any("random pixels" in row["what"] for row in result["rows"])
    text = (output / "quick.md").read_text()
    assert text == table.markdown(result)
    assert str(tmp_path) not in text


@pytest.mark.slow
def test_the_complete_gpu_suite_on_a_cpu_without_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # With --quick all jobs run in this one process.
    code = f"""
import runpy, sys
sys.argv = ["gpu", "--quick", "--device", "cpu", "--output", {str(tmp_path)!r}]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
print("imported", sorted({{"hydra", "omegaconf"}} & sys.modules.keys()))
"""
    process = watched([sys.executable, "-c", code])
    assert process.status == 0, process.output
    assert "imported []" in process.output
    result = json.loads((tmp_path / "gpu_quick.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    rates = rows["training, width 8, batch 8, images/s"]
    matrix_rates = result["limits"]["matrix_flop_per_second"]["bf16" if "bf16" in result["precision"] else "fp32"]
    flops = result["raw"]["training, width 8, batch 8"]["ours"][0]["flops"]
    assert rates["limit"] == pytest.approx(max(matrix_rates.values()) / flops)
    assert rows["training, width 8, batch 16, start of the process to the first step, s"]["ours"][0] > 0
    (knn,) = [row for row in result["rows"] if row["peer_name"] == "torch.cdist"]
    assert knn["what"].endswith("random pixels")
    assert knn["note"] == "0 labels differ"


def test_the_gpu_suite_continues_after_out_of_memory(tmp_path: Path) -> None:
    lines: list[str] = []
    suite = Suite(QUICK, None, tmp_path, lines.append)
    suite.machine = {"precision": "32-true", "matrix_flop_per_second": {"fp32": {"64": 1e9}}}

    def run(job: str, **arguments: Any) -> dict[str, Any]:
        if arguments["batch"] > 8:
            raise RuntimeError(f"{job} failed:\ntorch.OutOfMemoryError: CUDA out of memory.")
        return {"rate": 100.0, "first_step": 1.0, "flops": 1e6}

    suite.run = run
    assert list(gpu.training(suite, 8, 16, 2)) == []
    assert lines[-1] == "training, width 8, batch 16: out of memory"
    rates, first_step = gpu.training(suite, 8, 8, 2)
    assert rates.ratio == first_step.ratio == 1
    assert rates.share == pytest.approx(100 * 1e6 / 1e9)

    def broken(job: str, **arguments: Any) -> dict[str, Any]:
        raise RuntimeError(f"{job} failed:\nZeroDivisionError")

    suite.run = broken
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(gpu.training(suite, 8, 8, 2))


def test_results_have_a_name_per_instruction_set_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for capability, bf16 in (("AVX512", True), ("AVX512", False), ("AVX2", False), ("NO AVX", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda value=capability: value)
        monkeypatch.setattr(speed, "cpu_has_bf16", lambda value=bf16: value)
        names |= {speed.file_name("given"), speed.file_name("embedded")}
    assert len(names) == 8
    assert {"speed_avx512_bf16", "speed_avx2_embedded", "speed_no_avx"} <= names
