"""``deepfake-cls COMMAND``, started as ``python -m deepfake_cls COMMAND``."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest

from deepfake_cls.__main__ import COMMANDS
from tests.conftest import call


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    done = call("deepfake_cls", *arguments)
    assert done.stdout.startswith("usage: deepfake-cls COMMAND")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == [*COMMANDS]


@pytest.mark.parametrize("command", ["deepfake_cls", "deepfake_cls train", "deepfake_cls.knn"])
def test_version_is_the_version_of_the_package(command: str) -> None:
    assert call(*command.split(), "--version").stdout == f"deepfake-cls {importlib.metadata.version('deepfake-cls')}\n"


def test_an_unknown_command_is_refused_with_the_available_ones() -> None:
    done = call("deepfake_cls", "trian", "lr=1", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: trian: unknown command; expected one of {', '.join(COMMANDS)}.")
    assert "Traceback" not in done.stderr


def test_help_of_a_command_lists_groups_and_keys() -> None:
    done = call("deepfake_cls", "train", "--help")
    assert done.stdout.startswith("usage: deepfake-cls train [KEY=VALUE ...]")
    for row in ("scale +reference, small, tiny", "batch_size=64 +Images in a batch.", "data.train_size=2500 +Images"):
        assert re.search(f"^  {row}", done.stdout, re.MULTILINE)


def test_help_of_a_preset_shows_its_keys() -> None:
    rows = call("deepfake_cls", "knn", "data=genimage", "--help").stdout
    assert re.search(r"^  data +diffusionforensics, folder, genimage, hf, pattern, ", rows, re.MULTILINE)
    assert re.search(r"^  data\.class_map=\{nature:real\} +New name of a class, such as ", rows, re.MULTILINE)


@pytest.mark.parametrize("module", ["deepfake_cls", "deepfake_cls.train"])
def test_help_ends_quietly_if_nobody_reads_it(module: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", module, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_gets_its_arguments_and_returns_its_status() -> None:
    done = call("deepfake_cls", "train", "data=unibuc", "data.root=nowhere", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data.root=nowhere does not exist")
