"""What all entry points share: Hydra, the jobs of a sweep, errors in one line, exit statuses."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from uuid import uuid4

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deepfake_cls import __version__, distributed, gpus, jobs
from deepfake_cls.config import SCHEMAS, conf_dir
from deepfake_cls.errors import InputError, OutputError, closed_pipe_allowed, writing
from deepfake_cls.files import write_atomically
from deepfake_cls.help import command_help
from deepfake_cls.overrides import (
    explain,
    import_plugins,
    plugin_modules,
    refuse_ambiguous,
    refuse_other_experiments,
    refuse_unknown_flags,
    refuse_unknown_options,
    refuse_wrong_form,
    split_positional,
    task_overrides,
    to_hydra,
)
from deepfake_cls.sweep import Job, print_sweep
from deepfake_cls.validation import validate

Schema = TypeVar("Schema")

# The commands that refuse a sweep, with the message.
ONCE = {
    "audit": "audit writes one page; call it without -m.",
    "cache": "cache lists all entries at once; call it without -m.",
    "compare": "compare reads finished runs; call it without -m.",
    "predict": "predict labels images once; call it for each checkpoint instead of sweeping with -m.",
    "report": "report reads all runs at once; call it without -m.",
    "runs": "runs lists all runs at once; call it without -m.",
}


def main(name: str, schema: type[Schema], run: Callable[[Schema, bool], None], positional: str | None = None) -> None:
    """Run an entry point: once, or once for each job of a sweep.

    Jobs of a sweep run one after the other, or as a launcher of Hydra starts them. A job that fails or crashes does not
    end the sweep: its error is printed at once and again at the end, and the exit status is 1. A signal ends the sweep
    with status 128 plus its number. A job that raises :class:`IncompleteError` sets the exit status 3.

    Args:
        name: Name of the entry point and of its file in ``conf/``.
        schema: Dataclass of its configuration.
        run: Its function, called with the checked configuration, and whether this is one job of a sweep.
        positional: The key, a list, that takes the arguments without ``=``; None refuses them.
    """
    if sys.platform == "win32":
        sys.exit("error: deepfake_cls runs on Linux and macOS; on Windows use WSL.")
    sweep = bool({"-m", "--multirun"} & {*sys.argv}) or any(text.startswith("experiment=") for text in sys.argv)
    _prepare_process(name, sweep)
    try:
        values, arguments = _read_arguments(name, positional, sweep)
        folder = str(conf_dir())
        if sweep:
            with writing("runs/.sweep", "start the sweep in another folder"):  # Hydra's own error is a traceback
                Path("runs", ".sweep").mkdir(parents=True, exist_ok=True)
    except (InputError, OutputError) as error:
        sys.exit(f"error: {error}")

    command = Command(name, schema, run, {positional: values} if positional is not None and values else {})

    def run_job(config: DictConfig) -> None:  # Hydra asks for a function
        command.run_job(config)

    entry: Any = hydra.main(version_base="1.3", config_path=folder, config_name=name)(run_job)
    try:
        with closed_pipe_allowed():
            entry()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr, flush=True)
        sys.exit(130)
    except (HydraException, OmegaConfBaseException) as error:
        jobs.print_error(f"error: {explain(name, arguments, error)}")
        sys.exit(1)
    finally:
        failed = command.gather_failures(sweep)
    if sweep:
        with closed_pipe_allowed():
            print_sweep(name, command.ended)
    if failed:
        sys.exit(1)
    if command.incomplete:
        sys.exit(3)


def _read_arguments(name: str, positional: str | None, sweep: bool) -> tuple[list[str], list[str]]:
    """Check the command line, and turn it into Hydra's overrides; return its positional and its other arguments."""
    values, arguments = split_positional(sys.argv[1:])
    if "--version" in arguments:
        print(f"deepfake-cls {__version__}")
        sys.exit()
    if values and positional is None:
        raise InputError(f"{values[0] or 'an empty argument'}: expected KEY=VALUE; --help lists the keys.")
    refuse_unknown_flags(arguments)
    if positional is not None:
        refuse_ambiguous(SCHEMAS[name], positional, values, arguments)
    refuse_other_experiments(name, arguments)
    if sweep and name in ONCE:
        raise InputError(ONCE[name])
    import_plugins(plugin_modules(arguments))
    refuse_unknown_options(arguments)
    refuse_wrong_form(name, arguments)
    sys.argv[1:] = to_hydra(arguments)
    return values, arguments


def _prepare_process(name: str, sweep: bool) -> None:
    """Set up Hydra, the output of several processes, the signals of a sweep; refuse what torchrun cannot start."""
    jobs.configure_logging()
    jobs.enable_faulthandler()
    OmegaConf.register_new_resolver("jobs_at_a_time", gpus.jobs_at_a_time, replace=True)
    OmegaConf.register_new_resolver("command_help", command_help, replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    if distributed.rank() > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # open until the process ends
        logging.disable(logging.INFO)
    if distributed.world_size() > 1 and (sweep or name != "train"):
        kind = "a sweep" if sweep else f"deepfake_cls.{name}"
        jobs.print_error(f"error: torchrun shares one training over several devices; start {kind} without torchrun.")
        sys.exit(1)
    if sweep:
        # Without a handler, SIGTERM would leave a launcher's workers behind. A job that runs has a handler of its own.
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    print("\nStopped.", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def _process() -> tuple[str, int]:
    return platform.node(), os.getpid()


@dataclass
class Command:
    """One call of an entry point, with its jobs; a launcher sends copies to its workers.

    Attributes:
        name: See :func:`main`.
        schema: See :func:`main`.
        run: See :func:`main`.
        positional: The positional arguments by their key. They do not pass through Hydra's parser, which would
            interpret characters that file names may contain.
        folder: The folder in which the command was called.
        process: Machine and process of the command, to recognise a worker.
        ended: The jobs that have ended.
        incomplete: Whether a job in this process raised :class:`IncompleteError`.
        job_files: Folder with a file for each job that ended in a worker, also on another machine.
    """

    name: str
    schema: type[Any]
    run: Callable[[Any, bool], None]
    positional: dict[str, list[str]] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)
    process: tuple[str, int] = field(default_factory=_process)
    ended: list[Job] = field(default_factory=list)
    incomplete: bool = False
    job_files: Path = field(default_factory=lambda: Path.cwd() / "runs" / ".sweep" / f"jobs-{uuid4().hex}")

    def run_job(self, config: DictConfig) -> None:
        """Run one job and record its failure; Hydra calls this in the command's process or in a worker."""
        hydra_config = HydraConfig.get()
        sweep = hydra_config.mode == RunMode.MULTIRUN
        arguments = [text.lstrip("+") for text in task_overrides()]
        overrides = " ".join(arguments)
        in_worker = _process() != self.process
        if in_worker:
            jobs.configure_logging()
            os.chdir(self.folder)
        if sweep:
            print(f"\n── job {hydra_config.job.num + 1}: {overrides}", flush=True)

        def run(config: DictConfig, sweep: bool) -> jobs.Outcome | None:
            if in_worker:
                import_plugins(config.get("plugins", []))
            checked = validate(config, self.schema)
            for key, values in self.positional.items():
                setattr(checked, key, values)
            return self._run_checked(checked, sweep, overrides)

        outcome = jobs.attempt(run, config, sweep, overrides)
        if outcome.signal is not None and not in_worker:
            raise SystemExit(128 + outcome.signal)
        self.incomplete |= outcome.incomplete
        folder = None if outcome.run is None else str(outcome.run)
        job = Job(hydra_config.job.num if sweep else 0, arguments, outcome.failure, folder)
        if in_worker:
            write_atomically(self.job_files / str(job.number), json.dumps(asdict(job)).encode())
        else:
            self.ended.append(job)
        if in_worker and sys.stdout is not None:
            sys.stdout.flush()  # a worker may be killed at any time

    def _run_checked(self, config: Any, sweep: bool, overrides: str) -> jobs.Outcome | None:
        """Run a job in this process, or a sweep's job in a process of its own."""
        launcher = str(HydraConfig.get().launcher.get("_target_"))
        if "ray" in launcher:
            gpus.warn_of_hidden_gpus(config.trainer.device)
        if not sweep or "submitit" in launcher:  # SLURM starts a process for each job and sends it signals
            self.run(config, sweep)
            return None
        shared_gpus = gpus.visible_gpus(config.trainer.device) if "joblib" in launcher else []
        return jobs.run_in_process(self.name, config, overrides, shared_gpus)

    def gather_failures(self, sweep: bool) -> bool:
        """Whether a job failed; lists the failures, and completes ``ended`` by the jobs of workers."""
        if self.job_files.is_dir():
            self.ended += [Job(**json.loads(file.read_bytes())) for file in self.job_files.glob("[0-9]*")]
            shutil.rmtree(self.job_files)
        self.ended.sort(key=lambda job: job.number)
        failures = [job.failure for job in self.ended if job.failure is not None]
        if failures and (sweep or len(failures) > 1):
            print(f"\n{len(failures)} job(s) failed:", *failures, sep="\n  ", file=sys.stderr, flush=True)
        return bool(failures)
