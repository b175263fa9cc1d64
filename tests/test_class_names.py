"""Class names that no terminal shows as they are: every command takes them, and the files keep them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SMALL_NET, call

NAMES = [os.fsdecode(name) for name in (b"b\xffd", b"new\nline", b"plain")]


def write_images(root: Path) -> None:
    """Write a folder of 12 images of noise for each class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(root / name / f"{index}.png")


@pytest.mark.parametrize("logger", ["tensorboard", "csv"])
def test_any_class_names_train(logger: str, tmp_path: Path) -> None:
    write_images(tmp_path / "odd")
    data = ["data=folder", "data.root=odd"]
    done = call("deepfake_cls.train", *data, *SMALL_NET, "epochs=1", f"logger={logger}", "run_dir=runs/odd")
    printed = [r"recall, b\udcffd ", r"recall, new\x0aline ", "recall, plain "]
    assert all(text in done.stdout for text in printed)
    assert json.loads(Path("runs/odd/result.json").read_text())["data"]["classes"] == NAMES
    saved = torch.load("runs/odd/checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["classes"] == NAMES
    if logger == "csv":  # the other commands do not depend on the logger
        assert r"recall/b\udcffd" in Path("runs/odd/metrics.csv").read_text()
        return
    with_model = ["checkpoint=runs/odd/checkpoints/last.ckpt", "trainer.threads=1", "trainer.progress=false"]
    done = call("deepfake_cls.evaluate", *data, *with_model)
    assert all(text in done.stdout for text in printed)
    done = call("deepfake_cls.predict", "odd/plain/0.png", *with_model)
    assert r"Possible answers: b\udcffd, new\x0aline, plain (" in done.stdout
    call("deepfake_cls.report", *data, *SMALL_NET, "epochs=1", "output=report")
    assert r"b\udcffd" in Path("report/index.html").read_text()
