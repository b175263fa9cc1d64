"""Timing: alternate the sides, run each repetition in a new process, and record its memory.

A job is a function ``module:name`` that takes and returns JSON values. It runs in a new process because this project
sets malloc options that would also speed up the baselines, and because memory is counted per process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")
ROOT = Path(__file__).resolve().parents[1]
STARTED = "DEEPFAKE_CLS_BENCHMARK_STARTED"
RESULT = "result: "  # prefix of the output line that holds a job's result
SAMPLE_SECONDS = 0.02
IMPORTED = time.time()


def alternate(
    sides: Mapping[str, Callable[[], Result]],
    repeats: int,
    seconds: float = math.inf,
    log: Callable[[str, Result], None] = lambda side, result: None,  # noqa: ARG005
) -> dict[str, list[Result]]:
    """Call the sides in turn, so that a change of the machine's speed affects all of them.

    Args:
        sides: Functions to measure, by name.
        repeats: Number of rounds.
        seconds: Time budget. The first round always runs; a further round runs only if it is expected to end in time.
        log: Called with each result.

    Returns:
        The results of each side, equally many.
    """
    results: dict[str, list[Result]] = {side: [] for side in sides}
    started = time.perf_counter()
    for rounds in range(repeats):
        if rounds and (time.perf_counter() - started) * (rounds + 1) / rounds > seconds:
            break
        for side, call in sides.items():
            result = call()
            results[side].append(result)
            log(side, result)
    return results


def in_new_process(job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job in a new process.

    Args:
        job: ``module:function``.
        arguments: JSON values.

    Returns:
        Its result, and ``peak``: the maximum of the process's anonymous memory, bytes; 0 where it is not available.
    """
    process = watched([sys.executable, "-m", "benchmarks.measure", job, json.dumps(arguments)])
    lines = [line.removeprefix(RESULT) for line in process.output.splitlines() if line.startswith(RESULT)]
    if process.status != 0 or not lines:
        raise RuntimeError(f"{job} failed:\n{process.output[-4000:]}")
    return {**json.loads(lines[-1]), "peak": process.peak}


def in_this_process(job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job in this process, which is faster but measures nothing of use; arguments as in `in_new_process`."""
    module, name = job.split(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    return {**json.loads(json.dumps(result)), "peak": anonymous_memory()}


class Finished(NamedTuple):
    """A process that has ended; memory in bytes."""

    status: int
    output: str
    peak: int
    seconds: float


def watched(command: list[str], folder: Path | None = None) -> Finished:
    """Run a command in ``folder`` and sample its memory."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment())
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, anonymous_memory(process.pid))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
            seconds = time.perf_counter() - started
        finally:
            process.kill()
        output.seek(0)
        return Finished(process.returncode, output.read().decode(errors="replace"), peak, seconds)


def environment() -> dict[str, str]:
    """The environment of a measured process: it can import this clone, writes bytecode and has its start time."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [variables.get("PYTHONPATH")])])
    variables[STARTED] = repr(time.time())
    return variables


def seconds_since_start() -> float:
    """Seconds since :func:`watched` started this process, else since the import of this module."""
    return time.time() - float(os.environ.get(STARTED, IMPORTED))


def anonymous_memory(pid: int | str = "self") -> int:
    """Anonymous memory of a process in bytes, without mapped files; 0 where the system does not report it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


class Stopwatch:
    """Images per second from the end of step ``skip`` to the end of step ``steps``.

    Args:
        skip: Warm-up steps, which are not counted.
        steps: Total steps, warm-up included.
        wait: Waits for the device, so that queued work is not counted as done.
    """

    def __init__(self, skip: int, steps: int, wait: Callable[[], object] = lambda: None) -> None:
        self.skip, self.steps, self.wait = skip, steps, wait
        self.done = self.images = 0
        self.first_step = math.nan  # seconds since the process started
        self._start = self._end = math.nan

    def step(self, images: int) -> None:
        """Record the end of a step of ``images`` images."""
        self.done += 1
        if self.skip < self.done <= self.steps:
            self.images += images
        if self.done not in (1, self.skip, self.steps):
            return
        self.wait()
        now = time.perf_counter()
        if self.done == 1:
            self.first_step = seconds_since_start()
        if self.done == self.skip:
            self._start = now
        if self.done == self.steps:
            self._end = now

    @property
    def rate(self) -> float:
        """Images per second."""
        if not self._end > self._start:
            raise RuntimeError(f"{self.done} steps were made; {self.steps} are needed, {self.skip} of them as warm-up.")
        return self.images / (self._end - self._start)


def main() -> None:
    """Run the job that :func:`in_new_process` names on the command line."""
    job, arguments = sys.argv[1:]
    result = in_this_process(job, **json.loads(arguments))
    print(f"\n{RESULT}{json.dumps(result)}", flush=True)  # a progress bar may have left its line unfinished


if __name__ == "__main__":
    main()
