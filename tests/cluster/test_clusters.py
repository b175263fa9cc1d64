"""Sweeps through SLURM and Ray, started on this machine: ``make test-cluster``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepfake_cls import train
from deepfake_cls.config import TrainConfig
from deepfake_cls.records import read_record
from tests.conftest import SMALL_NET, call, configure
from tests.test_train import assert_equal, outcome

OVERRIDES = [*SMALL_NET, "data=unibuc", "data.root=competition", "channels=RGB", "epochs=1"]

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("unibuc_like")]

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MailProg=/bin/true
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SLURM with this machine as its only node: a key, munged, slurmctld and slurmd, with all files in one folder."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    daemons = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun")}
    missing = [name for name, executable in daemons.items() if executable is None]
    if missing:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}); on Debian: apt-get install slurm-wlm munge")
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("hydra-submitit-launcher is not installed; pip install 'deepfake-cls[slurm]'")
    if os.geteuid() != 0:
        pytest.skip("starting SLURM's daemons needs root")
    folder = tmp_path_factory.mktemp("slurm")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    conf = SLURM_CONF.format(host=host, ports=free_ports(2), folder=folder, cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(conf)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = [f"--{name}-file={folder / file}" for name, file in (("pid", "pid"), ("log", "log"), ("seed", "seed"))]
    commands = [
        [daemons["munged"], "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket", *munge],
        [daemons["slurmctld"], "-D"],
        [daemons["slurmd"], "-D"],
    ]
    started = []
    log = (folder / "daemons.log").open("wb")
    try:
        for command in commands:
            started.append(subprocess.Popen([str(argument) for argument in command], stdout=log, stderr=log))
        limit = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            assert time.monotonic() < limit, (folder / "daemons.log").read_text()[-3000:]
            time.sleep(0.5)
        yield
        # A job's step ends after its result is written, and never without the daemons.
        while time.monotonic() < limit + 600 and subprocess.run(["squeue", "-h"], capture_output=True).stdout:
            time.sleep(0.5)
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)
        log.close()


@pytest.fixture
def ray() -> Iterator[str]:
    """Start a Ray cluster on this machine and return its address."""
    for module in ("ray", "hydra_plugins.hydra_ray_launcher"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("Ray is not installed; pip install 'deepfake-cls[ray]'")
    port = free_ports(1)[0]
    folder = Path("/tmp") / f"ray-test-{port}"  # Ray's sockets need a short path
    options = ["start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *options, f"--temp-dir={folder}", "--disable-usage-stats"]
    head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
    try:
        limit = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert head.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def check_sweeps(*launcher: str) -> None:
    """Run two jobs and compare one with a single run; then run one that is done already and one that fails."""
    command = ["deepfake_cls.train", *OVERRIDES, "-m", *launcher]
    done = call(*command, "seed=0,1")
    records = {record.seed: record for record in map(read_record, Path("runs/cnn").glob("[!.]*"))}
    assert {seed: record.status for seed, record in records.items()} == {0: "ok", 1: "ok"}, done.stdout + done.stderr
    train.run(configure("train", TrainConfig, *OVERRIDES, "seed=1", "run_dir=alone"), False)
    assert_equal(outcome(Path("runs/cnn") / records[1].identity[:12]), outcome(Path("alone")))

    again = call(*command, "lr=4e-3,0", check=False)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "1 job(s) failed:" in again.stderr
    assert "lr=0: expected a number above 0" in again.stderr
    assert len(list(Path("runs/cnn").glob("*/result.json"))) == 2


def test_slurm(slurm: None) -> None:
    check_sweeps("launcher=slurm")
    logs = [file.read_text() for file in Path("runs/.sweep/.submitit").glob("*/*_log.out")]
    assert sum("validation accuracy, 95 % interval" in log for log in logs) == 3  # SLURM ran them

    # One job is cancelled and saves a checkpoint; the other one finishes.
    arguments = ["deepfake_cls.train", *OVERRIDES, "-m", "launcher=slurm", "epochs=100000,2"]
    sweep = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
    while len(list(Path("runs/cnn").glob("*/checkpoints/last.ckpt"))) < 4:
        assert sweep.poll() is None
        time.sleep(0.5)
    running = subprocess.run(["squeue", "-h", "-r", "-o", "%F_%K %K"], capture_output=True, text=True, check=True)
    (first,) = (line.split()[0] for line in running.stdout.splitlines() if line.endswith(" 0"))
    subprocess.run(["scancel", first], check=True)
    errors = sweep.communicate(timeout=120)[1]
    assert sweep.returncode == 1, errors
    assert "1 job(s) failed:" in errors
    assert "The same command resumes from it." in errors
    assert len(list(Path("runs/cnn").glob("*/result.json"))) == 3


def test_ray(ray: str) -> None:
    check_sweeps("launcher=ray", f"hydra.launcher.ray.init.address='{ray}'")
