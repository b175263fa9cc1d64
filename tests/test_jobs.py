"""Jobs of a sweep in processes of their own: crashes, signals, memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from PIL import Image

from deepfake_cls.config import KnnConfig, TrainConfig
from deepfake_cls.jobs import STOP_SIGNALS, attempt, out_of_memory, run_in_process
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.run_folders import Run, record_failure
from tests.conftest import SMALL_NET, call, configure
from tests.test_distributed import torchrun_variables

# Python runs this at the start of every process. A job that has read bad/train.csv sends a signal to itself
# when it opens or renames a certain file: by default its predictions, after the training.
KILLER = """
    import os
    import sys
    import time

    seen = []

    def hook(event, args):
        if event in ("open", "os.rename", "shutil.move"):
            path = str(args[event != "open"])
            if "bad/train.csv" in path:
                seen.append(path)
            if seen and os.environ.get("KILLED_AT", "predictions.npz") in path:
                if "OUTLIVED_BY" in os.environ and os.fork() == 0:
                    with open(os.environ["OUTLIVED_BY"], "w") as file:
                        file.write(str(os.getpid()))
                    time.sleep(600)
                    os._exit(0)
                os.kill(os.getpid(), int(os.environ["KILLED_BY"]))

    sys.addaudithook(hook)
"""


@pytest.fixture
def killer(unibuc_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets, ``competition`` and ``bad``, and a hook by which jobs on ``bad`` send a signal to themselves."""
    shutil.copytree(unibuc_like, tmp_path / "bad")
    Image.new("RGB", (16, 16)).save(tmp_path / "bad" / "train" / "tr000.png")  # otherwise both have the same run keys
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(KILLER))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return tmp_path


@pytest.mark.usefixtures("killer")
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        pytest.param([], signal.SIGSEGV, marks=pytest.mark.slow),
        ([], signal.SIGKILL),
        pytest.param(["launcher=joblib", "hydra.launcher.n_jobs=2"], signal.SIGSEGV, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_dies_of_a_signal_is_recorded_and_the_sweep_continues(
    launcher: list[str], number: signal.Signals
) -> None:
    overrides = [*SMALL_NET, "epochs=1", "data=unibuc", "data.root=bad,competition", "seed=0,1"]
    command = ["deepfake_cls.train", "-m", *launcher, *overrides]
    done = call(*command, check=False, env={"KILLED_BY": str(int(number))})
    assert done.returncode == 1, done.stdout + done.stderr
    head, _, tail = done.stderr.partition("2 job(s) failed:")
    for seed in (0, 1):
        text = f"data.root=bad seed={seed}: died of {number.name} ({signal.strsignal(number)})"
        assert text in head  # at once
        assert text in tail  # in the list at the end
    assert ("Fatal Python error: Segmentation fault" in head) == (number == signal.SIGSEGV)  # faulthandler's
    assert ("as the system does when memory runs out" in tail) == (number == signal.SIGKILL)
    assert done.stdout.count("next: ") == 1  # of the sweep
    table = [line.split() for line in done.stdout.rpartition("── 4 jobs")[2].splitlines() if line.strip()[:1].isdigit()]
    assert [row[:4] for row in table[:2]] == [["1", "bad", "0", "failed"], ["2", "bad", "1", "failed"]]
    assert [row[:3] for row in table[2:4]] == [["3", "competition", "0"], ["4", "competition", "1"]]
    assert all(Path(row[-1]).is_dir() for row in table[:4])
    records = [read_record(folder) for folder in Path("runs/cnn").glob("[!.]*")]
    outcomes = {(record.config["data"]["root"], record.seed): (record.status, record.error) for record in records}
    assert {key: status for key, (status, _) in outcomes.items()} == {
        ("bad", 0): "failed",
        ("bad", 1): "failed",
        ("competition", 0): "ok",
        ("competition", 1): "ok",
    }
    assert f"died of {number.name}" in str(outcomes["bad", 0][1])

    # The same command without the fault repeats only the failed jobs.
    again = call(*command, env={"KILLED_BY": "0"})  # signal 0 has no effect
    assert again.stdout.count("already done") == 2
    assert "failed" not in again.stdout.rpartition("── 4 jobs")[2]
    assert {read_record(folder).status for folder in Path("runs/cnn").glob("[!.]*")} == {"ok"}


@pytest.mark.usefixtures("killer")
@pytest.mark.slow
def test_a_signal_to_one_job_does_not_stop_the_sweep() -> None:
    overrides = [*SMALL_NET, "epochs=2", "data=unibuc", "data.root=bad,competition", "seed=0"]
    env = {"KILLED_BY": str(int(signal.SIGTERM)), "KILLED_AT": "checkpoints/last.ckpt"}
    done = call("deepfake_cls.train", "-m", *overrides, check=False, env=env)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "The same command resumes from it." in done.stderr.partition("1 job(s) failed:")[2]
    assert done.stdout.count("next: ") == 1  # of the sweep


@pytest.mark.usefixtures("killer")
@pytest.mark.slow
def test_a_child_that_outlives_its_crashed_job_does_not_block_the_sweep() -> None:
    overrides = [*SMALL_NET, "epochs=1", "data=unibuc", "data.root=bad", "seed=0"]
    env = {"KILLED_BY": str(int(signal.SIGKILL)), "OUTLIVED_BY": str(Path("pid").resolve())}
    command = [sys.executable, "-m", "deepfake_cls.train", "-m", *overrides]
    with Path("log").open("w") as log:
        sweep = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
        try:
            assert sweep.wait(300) == 1
        finally:
            os.kill(int(Path("pid").read_text()), signal.SIGKILL)  # fails if the child has ended before the sweep
    assert "died of SIGKILL" in Path("log").read_text()


@pytest.mark.usefixtures("killer")
def test_a_single_run_that_crashes_prints_a_traceback() -> None:
    overrides = [*SMALL_NET, "epochs=1", "data=unibuc", "data.root=bad"]
    done = call("deepfake_cls.train", *overrides, check=False, env={"KILLED_BY": str(int(signal.SIGSEGV))})
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "write_predictions" in done.stderr


def start_sweep() -> subprocess.Popen[str]:
    """Start two jobs that would train for days, in a new process group."""
    overrides = [*SMALL_NET, "data=unibuc", "data.root=competition", "epochs=100000", "seed=0,1"]
    command = [sys.executable, "-m", "deepfake_cls.train", "-m", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_a_sweep_reaches_the_job_which_saves_a_checkpoint(
    number: signal.Signals, to_all: bool, unibuc_like: Path
) -> None:
    sweep = start_sweep()
    while not list(Path("runs/cnn").glob("*/checkpoints/last.ckpt")):
        assert sweep.poll() is None
        time.sleep(0.1)
    if to_all:  # like Ctrl-C in a terminal, or the command timeout
        os.killpg(sweep.pid, number)
    else:
        sweep.send_signal(number)
    output, errors = sweep.communicate(timeout=300)
    assert sweep.returncode == 128 + number, output + errors
    assert errors.count("The same command resumes from it.") == 1
    assert output.count("Stopping after this batch") == 1  # the job got the signal once
    assert "job 2" not in output
    assert not list(Path("runs/cnn").glob("*/result.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_while_a_job_starts_is_not_lost(number: signal.Signals, unibuc_like: Path) -> None:
    sweep = start_sweep()
    assert sweep.stdout is not None
    while "job 1" not in sweep.stdout.readline():
        assert sweep.poll() is None
    time.sleep(0.3)  # during the import of torch; the assertions hold at any time
    os.killpg(sweep.pid, number)
    output, errors = sweep.communicate(timeout=300)
    assert sweep.returncode == 128 + number, output + errors
    assert "job 2" not in output
    assert "Traceback" not in errors
    assert not list(Path("runs/cnn").glob("*/result.json"))


def test_signals_are_blocked_while_the_process_of_a_job_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    method = multiprocessing.get_start_method(allow_none=True)
    masks: list[set[int]] = []

    def start(self: BaseProcess) -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise OSError("no process")

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(OSError, match="no process"):
        run_in_process("train", TrainConfig(), "seed=0", [])
    multiprocessing.set_start_method(method, force=True)
    assert masks[0] >= {*STOP_SIGNALS}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*STOP_SIGNALS}


@pytest.mark.slow
def test_a_job_ends_when_its_parent_process_is_killed(unibuc_like: Path) -> None:
    overrides = [*SMALL_NET, "data=unibuc", "data.root=competition", "epochs=100000", "seed=0"]
    log = Path("log").open("w")  # noqa: SIM115
    sweep = subprocess.Popen([sys.executable, "-m", "deepfake_cls.train", "-m", *overrides], stdout=log, stderr=log)
    while not list(Path("runs/cnn").glob("*/checkpoints/last.ckpt")):
        assert sweep.poll() is None
        time.sleep(0.1)
    sweep.kill()
    sweep.wait()
    while "The same command resumes from it." not in Path("log").read_text():
        time.sleep(0.1)  # pytest's timeout ends a test that waits forever
    log.close()


def test_a_failure_is_not_recorded_over_a_result() -> None:
    config = KnnConfig(seed=3)
    claimed = Run("knn", Path("runs/knn/ab"), "ab" * 32)
    claimed.path.mkdir(parents=True)
    record_failure(claimed, config, "The process died.")
    record = read_record(claimed.path)
    assert (record.status, record.error, record.seed) == ("failed", "The process died.", 3)
    write_record(claimed.path, Record("knn", "ok", claimed.identity, asdict(config)))
    record_failure(claimed, config, "The process died.")
    assert read_record(claimed.path).status == "ok"


def test_too_little_memory_gives_one_line_with_the_batch_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(config: TrainConfig, sweep: bool) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines.")

    outcome = attempt(job, configure("train", TrainConfig, "batch_size=512"), True, "seed=1")
    text = "batch_size=512: the GPU's memory is too small for it; give a smaller batch_size or use trainer.device=cpu."
    assert outcome.failure == f"seed=1: {text}"
    assert capsys.readouterr().err == f"error: {text}\n"
    # Under torchrun each rank prints it, since the others may have enough memory.
    for key, value in torchrun_variables(1).items():
        monkeypatch.setenv(key, value)
    attempt(job, TrainConfig(), False, "")
    assert capsys.readouterr().err.startswith("error: batch_size=64: the GPU's memory is too small")
    assert out_of_memory(MemoryError(), TrainConfig()) == (
        "batch_size=64: memory is too small for it; give a smaller batch_size."
    )
    assert str(out_of_memory(torch.OutOfMemoryError(), KnnConfig())).startswith("the GPU's memory is too small")
    assert out_of_memory(RuntimeError("another error"), TrainConfig()) is None
