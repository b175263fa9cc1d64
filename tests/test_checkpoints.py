"""Checkpoints that are damaged, or that this project did not write."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from deepfake_cls import predict
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import PredictConfig
from deepfake_cls.errors import InputError
from tests.builders import classifier
from tests.conftest import call, configure

FILE = Path("model.ckpt")
SMALL_DATA = ["data.image_size=20", "data.test_size=5", "data.workers=1", "trainer.progress=false"]


def content() -> dict[str, Any]:
    model = classifier()
    return {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}


def saved(values: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def small() -> bytes:
    """A small file with all that a checkpoint of this project has."""
    values = content()
    values["state_dict"] = {f"network.{index}": torch.arange(40.0) + index for index in range(3)}
    return saved(values)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b) and type(a) is type(b)


def refusal(changed: bytes, original: dict[str, Any]) -> str | None:
    """The message that refuses a changed file; None if its content is read and equals the original."""
    FILE.write_bytes(changed)
    try:
        read = read_checkpoint(FILE)
    except InputError as error:
        return str(error)
    assert equal(read, original)
    return None


def records_begin(file: bytes) -> int:
    """Where the list of records begins, behind which each byte has a meaning for a reader of zip files."""
    return zipfile.ZipFile(io.BytesIO(file)).start_dir


def test_an_inverted_byte_is_refused_or_changes_nothing(small: bytes) -> None:
    FILE.write_bytes(small)
    original, begin = read_checkpoint(FILE), records_begin(small)
    rng = Random(0)
    positions = [rng.randrange(begin) for _ in range(150)] + [rng.randrange(begin, len(small)) for _ in range(150)]
    # The attributes of each record. One of them makes torch read no bytes of it, which zipfile does not find.
    positions += [info.start() + 38 for info in re.finditer(rb"PK\x01\x02", small)]
    messages = []
    for position in positions:
        changed = bytearray(small)
        changed[position] ^= 0xFF
        messages.append(refusal(bytes(changed), original))
    refused = [message for message in messages if message is not None]
    assert len(refused) > 150
    for message in refused:
        assert message.startswith("checkpoint=model.ckpt: is ")
        assert "\n" not in message
    assert all("is damaged" in message for message in refused if "project" not in message)


def test_each_bit_of_the_weights_is_verified(small: bytes) -> None:
    FILE.write_bytes(small)
    original = read_checkpoint(FILE)
    begin = small.index(np.arange(40, dtype=np.float32).tobytes())
    for position in range(begin, begin + 160, 7):
        changed = bytearray(small)
        changed[position] ^= 1 << position % 8
        message = refusal(bytes(changed), original)
        assert message is not None
        assert "is damaged (the record 'archive/data/0' has changed). Give best.ckpt of the same run" in message


def test_a_truncated_file_is_refused(small: bytes) -> None:
    FILE.write_bytes(small)
    original = read_checkpoint(FILE)
    for length in np.linspace(4, len(small) - 1, 50, dtype=int):
        message = refusal(small[:length], original)
        assert message is not None
        assert "is damaged (its end is missing or has changed). Give best.ckpt of the same run, or train" in message


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


FOREIGN = {
    "empty": (b"", "is empty. Give best.ckpt of the same run, or train again."),
    "text": (b"a text\nof two lines\n", "not a file of torch.save"),
    "zip": (zipped(a="text"), "is damaged or not a checkpoint of this project"),
    "pickle": (pickle.dumps(Code()), "not a file of torch.save"),
    "old_format": (None, "not a file of torch.save"),
    "code": (saved({"state_dict": {}, "hyper_parameters": Code()}), "more than tensors and plain values"),
    "state_dict": (saved({"layer.weight": torch.ones(2)}), "no state_dict with hyper_parameters"),
    "list": (saved([1, 2]), "no state_dict with hyper_parameters"),
    "lightning": (saved({"state_dict": {}, "hyper_parameters": {"lr": 0.1}}), "hyper_parameters have no model"),
    "lists": (saved({"state_dict": [], "hyper_parameters": []}), "no state_dict with hyper_parameters"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_predict_refuses_another_file_in_one_line_and_runs_no_code(name: str) -> None:
    file, message = FOREIGN[name]
    if file is None:
        torch.save(content(), FILE, _use_new_zipfile_serialization=False)
    else:
        FILE.write_bytes(file)
    with pytest.raises(InputError) as caught:
        predict.run(configure("predict", PredictConfig, "checkpoint=model.ckpt", *SMALL_DATA), False)
    text = str(caught.value)
    assert text.startswith("checkpoint=model.ckpt: is ")
    assert message in text
    assert text.endswith(".")
    assert "\n" not in text
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("width", 9, "size mismatch"),
        ("size", 20, "TypeError"),
        ("classes", 3, "TypeError"),
        ("model", {"name": "none", "args": {}}, "model.name=none"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_one_line(key: str, value: Any, message: str) -> None:
    values = content()
    values["hyper_parameters"][key] = value
    torch.save(values, FILE)
    with pytest.raises(InputError, match=f"checkpoint=model.ckpt: .*{message}") as caught:
        load_model(FILE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_empty_checkpoint_is_one_line_and_status_1() -> None:
    FILE.touch()
    done = call("deepfake_cls.predict", "checkpoint=model.ckpt", *SMALL_DATA, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: checkpoint=model.ckpt: is empty. Give best.ckpt of the same run, or train again.\n"


def test_a_repacked_checkpoint_is_read(small: bytes) -> None:
    FILE.write_bytes(small)
    original = read_checkpoint(FILE)
    with zipfile.ZipFile(io.BytesIO(small)) as old, zipfile.ZipFile(FILE, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert equal(read_checkpoint(FILE), original)
