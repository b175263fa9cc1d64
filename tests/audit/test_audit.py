"""``deepfake-cls audit``: the command, its files, its page; and the two real data sets."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.audit.__main__ import run
from deepfake_cls.config import AuditConfig
from deepfake_cls.errors import InputError
from tests.audit.planted import first, write
from tests.conftest import call, configure
from tests.data.sample_files import ATTRIBUTION, UNIBUC, needs_attribution, needs_unibuc

NAMES = [
    "decoding",
    "formats",
    "alpha",
    "balance",
    "exact_duplicates",
    "near_duplicates",
    "label_conflicts",
    "groups",
    "shortcut_metadata",
    "shortcut_filesize",
    "shortcut_colour",
]


def audited(folder: Path) -> dict[str, dict[str, Any]]:
    checks = json.loads((folder / "audit.json").read_text())["checks"]
    assert [check["name"] for check in checks] == NAMES
    for check in checks:
        assert {*check} == {"name", "verdict", "numbers", "examples", "advice"}
        assert check["verdict"] in ("ok", "warn", "fail")
    return {check["name"]: check for check in checks}


def audit(*overrides: str) -> dict[str, dict[str, Any]]:
    config = configure("audit", AuditConfig, *overrides)
    run(config, False)
    return audited(Path(config.output))


def test_the_command_prints_verdicts_and_writes_a_page(tmp_path: Path) -> None:
    root = write(tmp_path / "<data>")
    original = first(root, "train", "gan")
    shutil.copy(original, root / "validation" / "gan" / "<b>&.png")
    (root / "train" / "real" / "bad.png").write_bytes(b"no image")
    arguments = ["data=folder", 'data.root="<data>"', "data.cache=cache", "strict=true"]
    done = call("deepfake_cls", "audit", *arguments, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: strict=true: 2 of 11 checks failed: decoding, exact_duplicates.\n"
    assert re.search(r"^ *exact_duplicates +fail +2 images in 1 group of exact duplicates;", done.stdout, re.M)
    assert done.stdout.splitlines()[-1] == (
        "next: deepfake-cls train data=folder data.cache=cache 'data.root=\"<data>\"' data.on_error=skip"
    )
    checks = audited(tmp_path / "reports" / "audit")
    assert {name for name, check in checks.items() if check["verdict"] == "fail"} == {"decoding", "exact_duplicates"}
    page = (tmp_path / "reports" / "audit" / "index.html").read_text()
    assert "<b>&.png" not in page
    assert "&lt;b&gt;&amp;.png" in page
    assert page.count("data:image/jpeg;base64,") == 2  # the duplicates
    assert page.count("data:image/png;base64,") == 3  # figures of file size and colour
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)  # nothing outside
    for name in NAMES:
        assert f'<h2 id="{name}">' in page


def test_the_next_command_takes_crops_of_images_of_several_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "data")
    Image.fromarray(np.zeros((40, 300, 3), np.uint8)).save(root / "train" / "real" / "large.png")
    audit("data=folder", "data.root=data", "data.cache=cache")
    smallest = min(min(Image.open(path).size) for path in root.rglob("*.png"))
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" data.crop={smallest}")


def test_without_a_failed_check_strict_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data")
    overrides = ("data=folder", "data.root=data", "data.cache=cache", "strict=true", "output=a/b")
    first_checks = audit(*overrides)
    assert "36 images audited in" in capsys.readouterr().out
    assert audit(*overrides) == first_checks  # from the cache, with the same random numbers


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    path = root / "train" / "gan" / "bad\udce9.png"
    path.write_bytes(b"")
    checks = audit("data=folder", "data.root=data", "data.cache=cache")
    assert checks["decoding"]["examples"][0]["file"] == "train/gan/bad\udce9.png"
    assert r"bad\udce9.png" in (tmp_path / "reports" / "audit" / "index.html").read_text()


def test_the_embedded_data_can_be_audited() -> None:
    sizes = ["data.train_size=40", "data.validation_size=20", "data.test_size=10", "data.workers=1"]
    checks = audit(*sizes, "data.image_size=32", "data.cache=cache")
    assert checks["shortcut_metadata"]["verdict"] == checks["exact_duplicates"]["verdict"] == "ok"
    assert checks["decoding"]["numbers"] == {"images": 70, "refused": 0, "reasons": {}}


def test_a_sweep_and_an_output_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="call it without -m"):
        run(AuditConfig(), True)
    (tmp_path / "file").write_text("")
    done = call("deepfake_cls.audit", "output=file/x", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: file/x/audit.json cannot be written")


@needs_attribution
def test_the_attribution_sample_is_called_what_it_is() -> None:
    checks = audit("data=folder", f"data.root={ATTRIBUTION}", "data.cache=cache")
    assert checks["shortcut_metadata"]["verdict"] == "fail"
    assert 0.25 < checks["shortcut_metadata"]["numbers"]["balanced_accuracy"] < 0.6
    assert checks["groups"]["verdict"] == "warn"
    assert "data.group_pattern=" in checks["groups"]["advice"]
    assert checks["formats"]["numbers"]["formats"]["images"] == {"JPEG": 110, "PNG": 6}
    assert checks["formats"]["numbers"]["wrong_suffix"] == 6
    for name in ("decoding", "alpha", "exact_duplicates", "label_conflicts"):
        assert checks[name]["verdict"] == "ok"


@needs_unibuc
def test_the_competition_has_one_format_and_no_duplicates() -> None:
    checks = audit("data=unibuc", f"data.root={UNIBUC}", "data.cache=cache", "data.train_fraction=0.2")
    warned = {name for name, check in checks.items() if check["verdict"] != "ok"}
    assert warned == {"shortcut_filesize", "shortcut_colour"}
    assert checks["shortcut_filesize"]["numbers"]["balanced_accuracy"] == pytest.approx(0.38, abs=0.03)
