"""The jobs of a sweep, each in a process of its own: a job that crashes is reported, and the sweep continues.

On Linux the processes are forked from a server that has only imported torch and Lightning, so a job starts in
milliseconds. When the process ends, its GPU memory and torch's global switches are gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from deepfake_cls import distributed, run_folders
from deepfake_cls.errors import IncompleteError, InputError, Interrupted, OutputError
from deepfake_cls.escaping import printable
from deepfake_cls.gpus import free_gpu

# On macOS a process that has loaded the system's frameworks must not be forked, so each job imports everything itself.
START_METHOD = "spawn" if sys.platform == "darwin" else "forkserver"
# Modules that the server imports, by entry point; the job imports all others.
PRELOADED = {
    "train": ["deepfake_cls.training.fit"],
    "evaluate": ["deepfake_cls.inference"],
    "knn": ["deepfake_cls.data.images", "deepfake_cls.models.knn"],
    "statistics": ["deepfake_cls.data.images", "deepfake_cls.statistics_model"],
}

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
READY = "ready"  # the first message of a job, once it handles signals
_crashes_are_traced = False


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        failure: One line for the list of failed jobs; None after success.
        signal: The signal that stopped the job, after it saved a checkpoint.
        incomplete: Whether some inputs could not be used.
        run: The folder of the job's run, if it claimed one.
    """

    failure: str | None = None
    signal: int | None = None
    incomplete: bool = False
    run: Path | None = None


def attempt(job: Any, config: Any, sweep: bool, overrides: str) -> Outcome:
    """Run a job in this process and print its error.

    Args:
        job: Called with ``config`` and ``sweep``; returns None, or the outcome of another process.
        config: The configuration.
        sweep: Whether this is one job of a sweep.
        overrides: The job's overrides, its name in a sweep.
    """
    claimed: list[run_folders.Run] = []
    run_folders.on_claim.append(claimed.append)
    try:
        outcome = _attempt(job, config, sweep, overrides)
    finally:
        run_folders.on_claim.remove(claimed.append)
    return replace(outcome, run=claimed[-1].path) if claimed else outcome


def _attempt(job: Any, config: Any, sweep: bool, overrides: str) -> Outcome:
    prefix = f"{overrides}: " if sweep else ""
    try:
        return job(config, sweep) or Outcome()
    except Interrupted as stop:
        print_error(f"\n{stop}")
        return Outcome(f"{overrides}: {stop}", stop.signal)
    except (InputError, OutputError) as error:
        print_error(f"error: {error}")
        return Outcome(f"{prefix}{error}")
    except IncompleteError as error:
        print_error(f"{error}")
        return Outcome(incomplete=True)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads the output; the results are written
    except OSError as error:
        text = f"{error.filename or _unnamed_output()}: {error.strerror or error}"
        print_error(f"error: {text}")
        return Outcome(f"{prefix}{text}")
    except Exception as error:
        advice = out_of_memory(error, config)
        if advice is not None:
            print(f"error: {advice}", file=sys.stderr, flush=True)  # on any rank: the others may have enough memory
            return Outcome(f"{prefix}{advice}")
        traceback.print_exc()
        return Outcome(f"{overrides}: {type(error).__name__}: {error}")
    return Outcome()


def out_of_memory(error: Exception, config: Any) -> str | None:
    """Advice if the error means too little memory; None for any other error."""
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, by name: importing torch would slow every start
    if not (on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)):
        return None
    size = getattr(config, "batch_size", None)
    memory, device = ("the GPU's memory", "use trainer.device=cpu") if on_gpu else ("memory", "")
    if size is None:
        return f"{memory} is too small for this data set{device and f'; {device}'}."
    return f"batch_size={size}: {memory} is too small for it; give a smaller batch_size{device and f' or {device}'}."


def _unnamed_output() -> str:
    """What an error of writing without a file name is about; if standard output is refused, it is closed."""
    try:
        print(flush=True)  # without a buffer, only another write shows it
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at the end fails again
        return "standard output"
    return "a file"


def print_error(text: str) -> None:
    """Print on standard error; under torchrun only local rank 0 prints, since all ranks find the same error."""
    if distributed.local_rank() == 0:
        print(printable(text, keep="\n"), file=sys.stderr, flush=True)


def run_in_process(entry: str, config: Any, overrides: str, gpus: list[str]) -> Outcome:
    """Run one job of a sweep in a new process, and wait for it.

    SIGINT and SIGTERM are passed on to the job, which then saves a checkpoint. A job that dies of a signal, or ends
    without a result, is recorded as failed.

    Args:
        entry: Name of the entry point, whose ``run`` is the job.
        config: The checked configuration.
        overrides: The job's overrides, its name.
        gpus: The GPUs that jobs share, one job on each; if empty, torch chooses.
    """
    # A child inherits the default start method; in a joblib worker it is "loky", which the child lacks.
    multiprocessing.set_start_method(START_METHOD, force=True)
    context: Any = multiprocessing.get_context(START_METHOD)
    context.set_forkserver_preload(["deepfake_cls.forkserver", *PRELOADED.get(entry, [])])
    receiving, sending = context.Pipe(duplex=False)
    stops = _Stops()
    messages: list[Any] = []
    with free_gpu(gpus) as gpu, stops.handled():
        environment = dict(os.environ) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        process = context.Process(target=_child, args=(sending, entry, config, overrides, str(Path.cwd()), environment))
        try:
            with _signals_blocked():
                process.start()
        except (EOFError, OSError):
            if not stops.received:
                raise
            return Outcome(f"{overrides}: stopped", stops.received[0])
        sending.close()
        for message in _messages(receiving, process.sentinel):
            messages.append(message)
            if message == READY:
                stops.pass_on_to(process.pid)
        process.join()
    run = next((message for message in messages if isinstance(message, run_folders.Run)), None)
    outcome = next((message for message in messages if isinstance(message, Outcome)), None)
    if outcome is None and stops.received:  # stopped before or after its training: no checkpoint to save
        print_error("\nStopped.")
        outcome = Outcome(f"{overrides}: stopped")
    elif outcome is None:
        outcome = _crashed(process.exitcode or 0, config, overrides, run)
    # A signal to the job only, such as a user's kill, stops the job and not the sweep.
    return Outcome(
        outcome.failure, stops.received[0] if stops.received else None, run=None if run is None else run.path
    )


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM, here and in a process that starts meanwhile, until it has handlers for them."""
    resource_tracker.ensure_running()  # it unblocks both signals when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Stops:
    """SIGINT and SIGTERM of this process, passed on to a job once the job handles them.

    Attributes:
        received: Numbers of the signals, in order.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._pending: list[int] = []
        self._pid: int | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)

    def pass_on_to(self, pid: int) -> None:
        """Pass on the signals received so far, and all later ones."""
        self._pid = pid
        while self._pending:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self._pending.pop(0))

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        self._pending.append(number)
        if self._pid is not None:
            self.pass_on_to(self._pid)


def _crashed(status: int, config: Any, overrides: str, run: run_folders.Run | None) -> Outcome:
    """The outcome of a job whose process has ended without sending one."""
    if status < 0:
        end = f"died of {signal.Signals(-status).name} ({signal.strsignal(-status)})"
        if status == -signal.SIGKILL:
            end += ", as the system does when memory runs out"
    else:
        end = f"ended with exit status {status} and without a result"
    print_error(f"error: {overrides}: {end}")
    if run is not None:
        run_folders.record_failure(run, config, f"The process {end}.")
    return Outcome(f"{overrides}: {end}")


def _messages(receiving: Connection, sentinel: int) -> Iterator[Any]:
    """Messages of the child until it ends; its own child processes may outlive it and keep the pipe open."""
    with contextlib.suppress(EOFError, OSError):
        while receiving in wait([receiving, sentinel]):
            yield receiving.recv()


def _child(
    sending: Connection, entry: str, config: Any, overrides: str, folder: str, environment: dict[str, str]
) -> None:
    """The main function of a job's process."""
    with contextlib.suppress(OSError):
        os.setsid()  # so that a terminal's Ctrl-C comes once, through the parent
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    enable_faulthandler()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_logging()
    run_folders.on_claim.append(sending.send)
    try:
        sending.send(READY)
        for module in config.plugins:  # registers their parts in this process too
            importlib.import_module(module)
        job = importlib.import_module(f"deepfake_cls.{entry}").run
        outcome = attempt(job, config, True, overrides)
    except KeyboardInterrupt:
        outcome = Outcome(f"{overrides}: stopped", signal.SIGINT)
    sending.send(outcome)


def _end_with_parent() -> None:
    """Send SIGTERM to this job when its parent has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def enable_faulthandler() -> None:
    """Print a traceback if this process crashes."""
    global _crashes_are_traced
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard error may not be a file
        faulthandler.enable()
        _crashes_are_traced = True


def restore_faulthandler() -> None:
    """Enable it again after Lightning's ``fit``, which resets the handlers of all signals."""
    if _crashes_are_traced:
        faulthandler.disable()  # else enabling it again would do nothing
        enable_faulthandler()


def configure_logging() -> None:
    """Show messages of this project, and warnings of its libraries; print file names as they are, also no UTF-8."""
    import logging

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record), keep="\n\t")  # file names may contain control characters

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("lightning", "lightning.pytorch", "hydra", "hydra_plugins", "matplotlib", "fsspec", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
