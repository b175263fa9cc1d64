"""README, CONTRIBUTING and docs: commands run, examples are valid, and links lead somewhere.

A block marked ``console`` is run line by line. A block marked ``sh`` is an example: a make target, or a command with
a placeholder in capital letters, whose keys are checked. Blocks without a language are no code. ``docs/extend.md`` has
a test of its own, which runs its Python and its commands.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from deepfake_cls.config import SCHEMAS
from deepfake_cls.overrides import split_positional
from tests.conftest import ROOT, configure

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "experiments" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"\b(PATH|FILE|NAME|N|ADDRESS|URL_OF_THIS_REPOSITORY)\b")
# Embedded data of the documented size would take minutes.
SMALL = (
    "data.train_size=40 data.validation_size=20 data.test_size=10 data.image_size=16 epochs=1 trainer.progress=false"
)


def blocks(page: Path, language: str) -> list[str]:
    """The lines of all blocks of a language, without comments."""
    text_blocks = [text for name, text in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]
    return [line.split("  #")[0].strip() for text in text_blocks for line in text.splitlines() if line.strip()]


def examples() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for line in blocks(page, "sh")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_is_an_example(page: Path) -> None:
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if page.name == "extend.md":
            continue
        assert language in ("console", "sh", "python", ""), f"{page.name}: unknown language {language}"
        if language == "python":
            assert PLACEHOLDER.search(text), f"{page.name}: Python that no test runs and without a placeholder:\n{text}"
        if language == "":
            assert "python -m" not in text, f"{page.name}: mark this block as console or sh:\n{text}"
            assert "\nmake " not in f"\n{text}", f"{page.name}: mark this block as console or sh:\n{text}"


@pytest.mark.parametrize(("page", "line"), examples())
def test_examples_are_valid(page: str, line: str) -> None:
    if line.startswith("make "):
        done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    command = re.search(r"(?:python -m deepfake_cls\.|deepfake-cls )(\w+)(.*)", line)
    if command is None:  # pip, git and the like
        assert PLACEHOLDER.search(line), f"{page}: neither run nor with a placeholder: {line}"
        return
    bare = not command[2] or "scale=tiny" in line  # the commands of make demo
    assert bare or PLACEHOLDER.search(line), f"{page}: neither run nor with a placeholder: {line}"
    entry = command[1]
    overrides: list[str] = []
    paths, arguments = split_positional(shlex.split(command[2]))
    assert entry == "predict" or not paths
    for argument in arguments:
        if argument == "-m" or argument.startswith(("launcher=", "hydra.launcher", "+hydra.launcher")):
            continue  # launchers of other packages may be absent
        override = OverridesParser.create().parse_override(argument)
        first = next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
        overrides.append(argument if first is None else f"{override.get_key_element()}={first}")
    if not any(
        override.startswith("experiment=") for override in overrides
    ):  # an experiment is a sweep, checked elsewhere
        configure(entry, SCHEMAS[entry], *overrides)


def write_images(root: Path) -> None:
    """Images of two classes that differ in colour, in the layout of the README, and unlabelled photos; of any size."""
    rng = np.random.default_rng(0)
    for folder, count in (("mydata/train", 20), ("mydata/validation", 6), ("mydata/test", 4), ("photos", 3)):
        for channel, name in enumerate(("gan", "diffusion") if folder.startswith("mydata") else ("",)):
            target = root / folder / name
            target.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (128 + index, 150 - index, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(target / f"{index}.png")


def shell(command: str, folder: Path) -> str:
    """Run a command, which has to succeed, and return its standard output."""
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    write_images(tmp_path)
    lines = blocks(ROOT / "README.md", "console")
    assert len(lines) >= 6
    for line in lines:
        command = line.replace("python", sys.executable, 1)
        if ".train" in line and "data.root" not in line:
            command += f" {SMALL}"
        if ".report" in line:
            command += " trainer.progress=false"
        printed = shell(command, tmp_path)
        if ".train" in line and "data.root" in line:  # what it prints can be pasted
            start = printed.rpartition("next: ")[2].splitlines()[0]
            shell(
                f"{start} output=reports/next".replace("deepfake-cls", f"{sys.executable} -m deepfake_cls", 1), tmp_path
            )
    assert (tmp_path / "reports" / "index.html").stat().st_size > 1000
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    assert len(rows) == 4
    assert {row.split(",")[1] for row in rows[1:]} == {"gan"}
    assert len(list((tmp_path / "runs" / "cnn").iterdir())) >= 7  # three learning rates and four arms


def test_other_pages_have_no_commands_that_nobody_runs() -> None:
    assert [
        page.name for page in PAGES if blocks(page, "console") and page.name not in ("README.md", "extend.md")
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in re.findall(r"^#+ .*$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        assert not path or (page.parent / path).exists(), f"{page.name}: {target}"
        assert path or anchor in headings, f"{page.name}: {target}"
