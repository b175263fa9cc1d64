"""``predict`` on files and folders: answers, sizes, skipped images, output files, hostile names."""

from __future__ import annotations

import csv
import io
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deepfake_cls import evaluate, predict
from deepfake_cls.answers import Answers, check_output, table_text
from deepfake_cls.config import EvaluateConfig, PredictConfig
from deepfake_cls.errors import IncompleteError, InputError
from deepfake_cls.inference import logits_of
from deepfake_cls.training.module import Classifier
from tests.builders import classifier
from tests.conftest import call, configure
from tests.test_escaping import original

QUIET = ["trainer.progress=false", "trainer.threads=1", "trainer.precision=32-true"]
SIDE = 20  # the size of the builder's network
CLOSED = "Possible answers: a, b, c (closed set: an image of any other origin gets one of these too)."


@pytest.fixture(scope="module")
def network() -> Classifier:
    """An untrained network for three classes."""
    return classifier("RGB").eval()


@pytest.fixture
def checkpoint(network: Classifier) -> Path:
    return save(network, resize=False)


def save(network: Classifier, resize: bool | None, **others: Any) -> Path:
    """Write a checkpoint whose training resized images, did not, or does not say it."""
    settings: dict[str, Any] = {**network.hparams, "resize": resize, **others}
    if resize is None:
        del settings["resize"]
    torch.save({"state_dict": network.state_dict(), "hyper_parameters": settings}, "last.ckpt")
    return Path("last.ckpt").resolve()


def write(path: str, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Write an image of noise whose mean depends on the seed."""
    low = 40 * (seed % 5)
    pixels = np.random.default_rng(seed).integers(low, low + 90, (*size, 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return Path(path)


def run(checkpoint: Path, *overrides: str, paths: tuple[str, ...] = ()) -> None:
    config = configure("predict", PredictConfig, *QUIET, f"checkpoint={checkpoint}", *overrides)
    config.paths = [*paths]
    predict.run(config, False)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def probs_of(network: Classifier, image: Image.Image) -> list[float]:
    """Probabilities of one image, computed apart from the project's readers and batches."""
    batch = torch.from_numpy(np.array(image))[None]
    with torch.inference_mode():
        probs: list[float] = logits_of(network.network, batch, "32-true").softmax(dim=1)[0].tolist()
    return probs


# Paths and the table


def test_files_and_folders_are_labelled_in_a_table(checkpoint: Path, tmp_path: Path) -> None:
    for index, path in enumerate(["photo.png", "holiday/b.png", "holiday/a.png", "holiday/sub/c.PNG", "x=1.png"]):
        write(path, index)
    write("holiday/.hidden.png")
    write("holiday/sub/large.png", size=(30, 40))
    Path("holiday/notes.txt").write_text("no image")
    Path("holiday/fake.png").write_text("no image")
    Path("holiday/again").symlink_to(".", target_is_directory=True)
    arguments = ["photo.png", "holiday", "./photo.png", "missing.png", f"checkpoint={checkpoint}", *QUIET]
    arguments += ["data.cache=another", "data.workers=1"]  # as in a command that training prints
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = call("deepfake_cls.predict", *arguments, "--", "x=1.png", check=False, env=environment)
    assert done.returncode == 3, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["file", "answer", "probability", "next", "best", "probability"]
    answered = {line[0]: line[1:] for line in lines[2:10]}
    names = ["photo.png", "holiday/a.png", "holiday/b.png", "holiday/fake.png", "holiday/sub/c.PNG"]
    assert [*answered] == [*names, "holiday/sub/large.png", "missing.png", "x=1.png"]
    skipped = ["holiday/fake.png", "holiday/sub/large.png", "missing.png"]
    assert [name for name, cells in answered.items() if cells == ["–"] * 4] == skipped
    best, first, second, other = answered["photo.png"]
    assert {best, second} < {"a", "b", "c"}
    assert 1 / 3 < float(first) >= float(other) > 0
    assert "Images with an answer: 5 of 8" in done.stdout
    assert "of 5 images (" in done.stdout
    assert CLOSED in done.stdout
    assert done.stderr.splitlines() == [
        "ignored 2 entries (hidden, or without the suffix of an image), such as holiday/.hidden.png",
        "Images without an answer: 3 of 8:",
        "  holiday/fake.png is not an image that can be read, or is damaged",
        "  holiday/sub/large.png is 30×40 (height×width)",
        "  missing.png does not exist",
        f"The network was trained on {SIDE}×{SIDE} images without resizing; resize=true resizes other sizes, whose"
        " answers are then less reliable.",
    ]
    assert not (tmp_path / "cache").exists()
    assert not Path("another").exists()


def test_answers_are_those_of_the_network(checkpoint: Path, network: Classifier) -> None:
    """In several batches, with skipped images between them, and equal to those of ``data=folder``."""
    for index in range(45):
        write(f"photos/{index:02d}.png", index)
    for index in (3, 16, 17, 44):
        Path(f"photos/{index:02d}.png").write_bytes(b"")
    with pytest.raises(IncompleteError, match="answer: 4 of 45:\n  photos/03.png is empty"):
        run(checkpoint, "probabilities=true", "output=out.csv", "batch_size=8", paths=("photos",))
    labels = rows(Path("out.csv").read_text())
    assert [row["image_id"] for row in labels] == [f"photos/{index:02d}.png" for index in range(45)]
    for row in labels:
        if Path(row["image_id"]).stat().st_size == 0:
            assert (row["label"], row["error"], row["p_a"]) == ("", "is empty (0 bytes)", "")
            continue
        probs = probs_of(network, Image.open(row["image_id"]))
        assert np.allclose([float(row[f"p_{name}"]) for name in "abc"], probs, atol=2e-6)
        assert (row["label"], row["error"]) == ("abc"[int(np.argmax(probs))], "")
    with pytest.raises(IncompleteError):
        run(checkpoint, "data=folder", "data.root=photos", "data.on_error=skip", "probabilities=true", "output=two.csv")
    layout = rows(Path("two.csv").read_text())
    assert [row["image_id"] for row in layout] == [f"{index:02d}.png" for index in range(45)]
    assert [[*row.values()][1:3] for row in layout] == [[*row.values()][1:3] for row in labels]


def test_paths_and_a_data_set_exclude_each_other(checkpoint: Path) -> None:
    write("photo.png")
    write("a=b.png")
    for argument in ("data.root=x", "data=folder", "split=train"):
        done = call("deepfake_cls.predict", "photo.png", f"checkpoint={checkpoint}", argument, check=False)
        key = argument.partition("=")[0].removesuffix(".root")
        message = f"error: {argument}: cannot be combined with photo.png; give either paths or {key}=.\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    done = call("deepfake_cls.predict", "a=b.png", f"checkpoint={checkpoint}", check=False)
    assert (
        done.stderr == "error: a=b.png: is a file, but arguments with = are KEY=VALUE; put it at the end, after --.\n"
    )
    write("-dash.png")
    done = call("deepfake_cls.predict", "-dash.png", f"checkpoint={checkpoint}", check=False)
    message = "-dash.png: is a file, but arguments that start with - are options; put it at the end, after --."
    assert done.stderr == f"error: {message}\n"
    done = call("deepfake_cls.predict", f"checkpoint={checkpoint}", "--", "photo.png", "output=x.csv", check=False)
    assert done.stderr == "error: output=x.csv: does not exist; keys go before --.\n"


def test_the_table_cuts_off_no_name() -> None:
    name = "holiday/" + "long" * 30 + "[red].png"
    answers = Answers([name], np.array([0]), np.array([[0.2, 0.8]], np.float32), {}, ["[bold]", "y" * 70], True)
    for width in (60, 80, None):
        lines = table_text(answers, probabilities=False, width=width).splitlines()
        assert all(len(line) <= max(width or 1000, 70) for line in lines)
        cells = lines[[line.strip("─ ") for line in lines].index("") + 1 :]
        assert cells[0].endswith("0.200")
        columns = [lines[0].index(header) for header in ("file", "answer", "probability")]
        assert "".join(line[: columns[1]].strip() for line in cells) == name
        assert "".join(line[columns[1] : columns[2]].strip() for line in cells) == "y" * 70
    assert len(cells) == 1
    assert "[bold]" in cells[0]


# Sizes


def test_the_probabilities_of_many_classes_are_listed_below_the_table() -> None:
    classes = [f"generator-{index}" for index in range(13)]
    probs = np.full((2, 13), 1 / 13, np.float32)
    answers = Answers(["a.png", "b.png", "bad.png"], np.array([0, 1]), probs, {2: "is empty"}, classes, True)
    lines = table_text(answers, probabilities=True, width=80).splitlines()
    assert lines[0].split()[:2] == ["file", "answer"]
    assert all(len(line) <= 80 for line in lines)
    below = lines[lines.index("Probabilities:") + 1 :]
    assert (below[0], below.count("b.png"), below.count("bad.png")) == ("a.png", 1, 0)
    listed = " ".join(below[1 : below.index("b.png")])
    assert all(f"{name} 0.077" in listed for name in classes)
    for width in (None, 400):
        assert len(table_text(answers, probabilities=True, width=width).splitlines()) == 5  # an image is one line


def test_an_image_of_another_size_is_resized_if_training_resized(
    network: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    large = Image.open(write("large.png", 1, (31, 47)))
    run(save(network, resize=True), "probabilities=true", "output=out.csv", paths=("large.png",))
    resized = large.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    (row,) = rows(Path("out.csv").read_text())
    assert np.allclose([float(row[f"p_{name}"]) for name in "abc"], probs_of(network, resized), atol=2e-6)
    assert "resized 1 of 1 images to 20×20, as in training" in caplog.messages
    Path("mine").mkdir()
    Path("large.png").rename("mine/large.png")
    run(save(network, resize=True), "data=folder", "data.root=mine", "probabilities=true", "output=two.csv")
    (layout,) = rows(Path("two.csv").read_text())
    assert layout["p_a"] == row["p_a"]
    with pytest.raises(
        IncompleteError, match=r"large.png is 31×47 \(height×width\); .* on 20×20 images; resize=true resizes"
    ):
        run(save(network, resize=True), "resize=false", paths=("mine/large.png",))


@pytest.mark.parametrize(("resize", "training"), [(False, " without resizing"), (None, "")])
def test_an_image_of_another_size_is_refused_otherwise(
    resize: bool | None, training: str, network: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    write("large.png", size=(31, 47))
    checkpoint = save(network, resize)
    with pytest.raises(IncompleteError) as caught:
        run(checkpoint, paths=("large.png",))
    assert str(caught.value) == (
        "Images without an answer: 1 of 1: large.png is 31×47 (height×width); the network was trained on 20×20 images"
        f"{training}; resize=true resizes other sizes, whose answers are then less reliable."
    )
    run(checkpoint, "resize=true", paths=("large.png",))  # the advice works
    assert caplog.messages == [
        "resized 1 of 1 images to 20×20 by Lanczos, which changes generator traces: expect a lower accuracy"
    ]
    write("mine/other.png", size=(31, 47))
    write("mine/fits.png")
    data = ["data=folder", "data.root=mine", "output=out.csv"]
    with pytest.raises(IncompleteError):
        run(checkpoint, *data, "data.on_error=skip")
    assert "resize=true resizes other sizes" in rows(Path("out.csv").read_text())[1]["error"]
    run(checkpoint, *data, "resize=true")
    assert [row["image_id"] for row in rows(Path("out.csv").read_text())] == ["fits.png", "other.png"]
    with pytest.raises(InputError, match="resize: data=synthetic has no image files"):
        run(checkpoint, "resize=true")


# Labels


def test_numbers_are_for_the_competition_and_names_for_others(
    checkpoint: Path, unibuc_like: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    competition = ["data=unibuc", f"data.root={unibuc_like}", "resize=true"]
    run(checkpoint, *competition)
    lines = Path("submission.csv").read_text().splitlines()
    assert lines[0] == "image_id,label"
    assert {line.split(",")[1] for line in lines[1:]} <= {"0", "1", "2"}
    assert "Possible answers: 0 = a, 1 = b, 2 = c (closed set" in capsys.readouterr().out
    run(checkpoint, *competition, "names=true", "data.on_error=skip", "output=out.csv")
    assert Path("out.csv").read_text().splitlines()[0] == "image_id,label,error"
    assert {row["label"] for row in rows(Path("out.csv").read_text())} <= {*"abc"}
    run(checkpoint, "names=false", "output=out.csv", paths=(str(write("photo.png")),))
    (row,) = rows(Path("out.csv").read_text())
    assert row["name"] == "abc"[int(row["label"])]


def test_the_numbers_of_the_competition_are_its_labels_if_one_was_left_out(
    network: Classifier, unibuc_like: Path
) -> None:
    checkpoint = save(network, resize=True, classes=["0", "2", "7"])
    answers = []
    for names in ([], ["names=true"], ["names=false"]):
        run(checkpoint, "data=unibuc", f"data.root={unibuc_like}", *names, "output=out.csv")
        answers.append([row["label"] for row in rows(Path("out.csv").read_text())])
    assert answers[0] == answers[1] == [["0", "2", "7"][int(label)] for label in answers[2]] != answers[2]


def test_class_names_are_harmless(network: Classifier, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["=1+1", "b\x1b[31m", "c\n\udcff"]
    checkpoint, photo = save(network, False, classes=classes), str(write("photo.png"))
    run(checkpoint, "probabilities=true", paths=(photo,))
    run(checkpoint, "probabilities=true", "output=out.csv", paths=(photo,))
    (row,) = rows(Path("out.csv").read_text())
    assert [*row] == ["image_id", "label", "error", "p_=1+1", r"p_b\x1b[31m", r"p_c\x0a\udcff"]
    assert row["label"] in (r"\x3d1+1", r"b\x1b[31m", r"c\x0a\udcff")
    assert r"Possible answers: =1+1, b\x1b[31m, c\x0a\udcff (closed" in (output := capsys.readouterr().out)
    assert "\x1b" not in output


# The output


@pytest.mark.parametrize("output", ["last.ckpt", "photo.png", "notes.txt", "table.csv", "competition/train.csv"])
def test_other_files_are_not_replaced(output: str, checkpoint: Path, unibuc_like: Path) -> None:
    write("photo.png")
    Path("notes.txt").write_text("image_id,label")
    Path("table.csv").write_text("image_id,labels\n")
    if output == "notes.txt":
        Path(output).write_text("a letter")
    before = Path(output).read_bytes()
    missing = Path("missing.ckpt")  # the refusal comes before the work
    paths = () if "train" in output else ("photo.png",)
    data = [] if paths else ["data=unibuc", f"data.root={unibuc_like}"]
    with pytest.raises(InputError, match=rf"output={output}: (exists and is not a CSV that predict|is a table of the)"):
        run(missing, f"output={output}", *data, paths=paths)
    assert Path(output).read_bytes() == before


def test_its_own_csv_and_an_empty_file_are_replaced(checkpoint: Path) -> None:
    write("photo.png")
    Path("out.csv").touch()
    for _ in range(2):
        run(checkpoint, "output=out.csv", paths=("photo.png",))
        assert len(rows(Path("out.csv").read_text())) == 1


def test_without_any_answer_the_reasons_are_written(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.png").write_text("no image")
    for paths in (("missing.png",), ("missing.png", "text.png")):
        with pytest.raises(IncompleteError, match="missing.png does not exist"):
            run(checkpoint, "output=out.csv", "probabilities=true", paths=paths)
        written = rows(Path("out.csv").read_text())
        assert [(row["image_id"], row["label"], row["p_a"]) for row in written] == [(path, "", "") for path in paths]
        assert written[0]["error"] == "does not exist"
    assert "out.csv: 1 row\n" in (printed := capsys.readouterr().out)
    assert "Images with an answer: 0 of 2\nPossible answers: " in printed


def test_a_named_pipe_is_an_output(checkpoint: Path) -> None:
    write("photo.png")
    os.mkfifo("pipe")
    content: list[str] = []
    reader = threading.Thread(target=lambda: content.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    run(checkpoint, "output=pipe", paths=("photo.png",))
    reader.join(10)
    assert rows(content[0])[0]["image_id"] == "photo.png"


HOSTILE = [b"=1+1.png", b"@a.png", b"-1+2.png", b"a;=b.png", b"n\new.png", b"e\x1b[31m.png", b"\xff.png", b't\t,".png']


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_standard_output_is_a_harmless_csv_for_any_names(output: str, checkpoint: Path) -> None:
    write("plain.png")
    for name in HOSTILE:
        Path(os.fsdecode(name)).write_bytes(Path("plain.png").read_bytes())
    Path(os.fsdecode(b"\x1b[32m\xff.png")).write_bytes(b"")  # skipped, so it is named on standard error
    names = [b"plain.png", *HOSTILE, b"\x1b[32m\xff.png"]
    command = [sys.executable, "-m", "deepfake_cls.predict", f"checkpoint={checkpoint}", f"output={output}", *QUIET]
    done = subprocess.run([*command, "--", *names], capture_output=True)
    assert done.returncode == 3
    table = list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))
    assert table[0] == ["image_id", "label", "error"]
    ids = [row[0] for row in table[1:]]
    assert [os.fsencode(original(image_id)) for image_id in ids] == names
    assert not any(image_id.startswith(("=", "+", "-", "@", "\t")) for image_id in ids)
    assert done.stdout.count(b"\n") == len(names) + 1
    assert b"\x1b" not in done.stdout + done.stderr
    assert rb"\x1b[32m\udcff.png is empty" in done.stderr
    assert CLOSED.encode() in done.stderr
    assert f"standard output: {len(names)} rows\n".encode() in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_standard_output_is_named(checkpoint: Path) -> None:
    write("photo.png")
    command = [sys.executable, "-m", "deepfake_cls.predict", f"checkpoint={checkpoint}", "photo.png", *QUIET]
    cannot = "standard output cannot be written: No space left on device"
    for output, message in (([], "standard output: No space left on device"), (["output=-"], cannot)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*command, *output], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr.splitlines()[0].startswith(f"error: {message}"), done.stderr


# Evaluate


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_on_photos_prints_a_command_that_labels_them(split: str, checkpoint: Path) -> None:
    write("my photos/1.png")
    arguments = [*QUIET, f"checkpoint={checkpoint}", "data=folder", 'data.root="my photos"', f"split={split}"]
    with pytest.raises(InputError, match="split=test: has no labels to compare with.* deepfake-cls predict") as caught:
        evaluate.run(configure("evaluate", EvaluateConfig, *arguments), False)
    if split == "test":
        command = shlex.split(str(caught.value).partition("label its images with ")[2])
        assert command[:2] == ["deepfake-cls", "predict"]
        assert "1.png" in call("deepfake_cls", *command[1:]).stdout


def test_a_table_with_other_columns_is_not_replaced() -> None:
    Path("mine.csv").write_text("image_ids,label\na,1\n")
    with pytest.raises(InputError, match="output=mine.csv: exists and is not a CSV that predict wrote"):
        check_output("mine.csv")
