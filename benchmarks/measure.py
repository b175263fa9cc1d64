"""Timing: sides in turn, each repetition in a process of its own, its memory watched from outside.

A job is a function ``module:name`` that takes and returns plain values. It runs in a fresh process because the project
sets malloc options that would speed its peer up as well, and because memory can be told apart by process only.
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
from typing import IO, Any, TypeVar

Result = TypeVar("Result")
ROOT = Path(__file__).resolve().parents[1]
STARTED = "DEEPFAKE_CLS_BENCHMARK_STARTED"
RESULT = "result: "  # begins the line of a job's output that holds what it returned
SAMPLE_SECONDS = 0.02


def alternate(
    sides: Mapping[str, Callable[[], Result]],
    repeats: int,
    seconds: float = math.inf,
    tell: Callable[[str, Result], None] = lambda name, result: None,  # noqa: ARG005
) -> dict[str, list[Result]]:
    """Call the sides in turn, so that a machine that grows slower does so for all of them.

    Args:
        sides: What to call, by name.
        repeats: How many rounds.
        seconds: After the first round, no round is begun that would not end in this time; so a slow machine makes
            fewer.
        tell: Called with each result.

    Returns:
        The results of each side; all have equally many.
    """
    found: dict[str, list[Result]] = {name: [] for name in sides}
    started = time.perf_counter()
    for done in range(repeats):
        if done and (time.perf_counter() - started) * (done + 1) / done > seconds:
            break
        for name, call in sides.items():
            result = call()
            found[name].append(result)
            tell(name, result)
    return found


def fresh(job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job in a new process.

    Args:
        job: ``module:function``.
        arguments: Its arguments, as JSON knows them.

    Returns:
        What it returned, and ``peak``: the largest anonymous memory of its process in bytes; 0 where the system does
        not tell.
    """
    status, output, peak, _ = watched([sys.executable, "-m", "benchmarks.measure", job, json.dumps(arguments)])
    found = [line.removeprefix(RESULT) for line in output.splitlines() if line.startswith(RESULT)]
    if status != 0 or not found:
        raise RuntimeError(f"{job} failed:\n{output[-4000:]}")
    return {**json.loads(found[-1]), "peak": peak}


def watched(command: list[str], folder: Path | None = None) -> tuple[int, str, int, float]:
    """Run a command and watch its memory.

    Args:
        command: Program and arguments.
        folder: Where it runs.

    Returns:
        Exit status, output, largest anonymous memory in bytes, and seconds from start to end.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment())
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, anonymous(process.pid))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAMPLE_SECONDS)
            seconds = time.perf_counter() - started
        finally:
            process.kill()
        return process.returncode, _text(output), peak, seconds


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def environment() -> dict[str, str]:
    """The environment of a measured process: this clone importable, bytecode kept, its start known to it."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [found.get("PYTHONPATH")])])
    found[STARTED] = repr(time.time())
    return found


def since_start() -> float:
    """Seconds since this process was started by :func:`watched`."""
    return time.time() - float(os.environ.get(STARTED, "nan"))


def anonymous(pid: int | str = "self") -> int:
    """Anonymous memory that a process holds now, in bytes: without mapped files; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


class Stopwatch:
    """Images a second from the end of step ``skip`` to the end of step ``steps``.

    Args:
        skip: Steps that do not count: buffers are allocated in them, and workers start.
        steps: Steps in all.
        wait: Waits for the device, so that work which is only queued is not taken for done.
    """

    def __init__(self, skip: int, steps: int, wait: Callable[[], object] = lambda: None) -> None:
        self.skip, self.steps, self.wait = skip, steps, wait
        self.done = self.images = 0
        self.first_step = math.nan
        self._from = self._to = math.nan

    def step(self, images: int) -> None:
        """Note the end of a step of so many images."""
        self.done += 1
        if self.skip < self.done <= self.steps:
            self.images += images
        if self.done not in (1, self.skip, self.steps):
            return
        self.wait()
        now = time.perf_counter()
        if self.done == 1:
            self.first_step = since_start()
        if self.done == self.skip:
            self._from = now
        if self.done == self.steps:
            self._to = now

    @property
    def rate(self) -> float:
        """Images a second."""
        if not self._to > self._from:
            raise RuntimeError(
                f"{self.done} steps were made: {self.steps} are needed, {self.skip} of them not counted."
            )
        return self.images / (self._to - self._from)


def main() -> None:
    """Be the new process of :func:`fresh`."""
    job, arguments = sys.argv[1:]
    module, name = job.split(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print(f"\n{RESULT}{json.dumps(result)}", flush=True)  # a progress bar may have left its line unfinished


if __name__ == "__main__":
    main()
