from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls import statistics
from deepfake_cls.config import STATISTICS, StatisticsConfig
from deepfake_cls.data.images import open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.models import statistics_classifier
from deepfake_cls.models.image_statistics import GROUPS, image_statistics
from deepfake_cls.models.statistics_classifier import standardise
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.statistics_model import read_model, statistics_of
from tests.conftest import SMALL_DATA, configure

NPY = np.lib.format.magic(1, 0) + b"\x36\x00{'descr': '<f8', 'fortran_order': False, 'shape': (0,)}"
SMALL = [*SMALL_DATA, "data.image_size=24", "trainer.progress=false", "trainer.threads=1"]


def fit(*overrides: str) -> None:
    statistics.run(configure("statistics", StatisticsConfig, *SMALL, *overrides), False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    fit(f"run_dir={folder / 'out'}", f"data.cache={folder}")
    return folder / "out"


@pytest.fixture
def finished(shared: Path) -> Path:
    """The folder of a finished run in the test's folder."""
    return Path(shutil.copytree(shared, "out"))


def test_a_run_writes_a_complete_record_and_a_model_that_gives_its_predictions(finished: Path) -> None:
    record, model = read_record(finished), read_model(finished)
    config = configure("statistics", StatisticsConfig, *SMALL)
    validation = open_images(read_manifest(config.data), "validation", config.data, False)
    assert (record.kind, record.status, record.device != "") == ("statistics", "ok", True)
    assert set(record.seconds) == {"total", "setup", "extract", "fit", "evaluate", "importance"}
    assert np.trace(record.confusion) / 20 == pytest.approx(record.metrics["val_acc"])
    assert [row["group"] for row in record.importance] == ["all", *GROUPS]
    assert record.importance[0]["acc"] == pytest.approx(record.metrics["val_acc"])
    assert len(record.importance[0]["pairs"]) == 10
    assert list(model.classes) == record.data["classes"]
    images = torch.from_numpy(np.array(validation.store.images)).permute(0, 3, 1, 2)
    logits = model.classifier.logits(image_statistics(images, model.groups).numpy())
    ids, labels, probs = read_predictions(finished / "predictions.npz")
    assert (tuple(ids), labels.tolist()) == (validation.ids, validation.labels.tolist())
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=1).numpy(), probs, atol=1e-5)
    np.testing.assert_array_equal(read_predictions(finished / "predictions.npz", "logits")[2].shape, (20, 5))


def test_a_finished_run_is_skipped_and_equal_runs_have_equal_predictions(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    fit("run_dir=out")
    assert "out: already done; force=true repeats it." in capsys.readouterr().out
    fit("run_dir=again")
    assert read_record(Path("again")).identity == read_record(finished).identity
    for name in ("probs", "logits"):
        first, second = (read_predictions(Path(run, "predictions.npz"), name)[2] for run in ("out", "again"))
        assert np.array_equal(first, second)


def test_settings_that_change_the_result_make_another_run(finished: Path) -> None:
    identities = {read_record(finished).identity}
    for index, override in enumerate(["classifier=linear", "features=[covariance]", "seed=1"]):
        fit(f"run_dir=out{index}", override)
        identities.add(read_record(Path(f"out{index}")).identity)
    assert len(identities) == 4
    assert [row["group"] for row in read_record(Path("out1")).importance] == ["all", "covariance"]
    assert not len(read_model(Path("out0")).classifier.landmarks)


def test_any_integer_is_a_seed(finished: Path) -> None:
    """Negative seeds are hashed; the other seeds give the same results as before."""
    fit("run_dir=negative", "seed=-1")
    record = read_record(Path("negative"))
    assert (record.seed, record.config["seed"]) == (-1, -1)
    assert record.identity != read_record(finished).identity
    landmarks = [read_model(run).classifier.landmarks for run in (finished, Path("negative"))]
    assert not np.array_equal(landmarks[0], landmarks[1])
    assert np.array_equal(np.sort(landmarks[0], axis=None), np.sort(landmarks[1], axis=None))
    # The landmarks of seed 0 are those of numpy's generator with this seed: fold order first, then the landmarks.
    config = configure("statistics", StatisticsConfig, *SMALL)
    train = open_images(read_manifest(config.data), "train", config.data, False)
    values = statistics_of(train.store.images, GROUPS, 1, progress=False)
    rng = np.random.default_rng(0)
    rng.permutation(40)
    classifier = read_model(finished).classifier
    expected = standardise(values[rng.permutation(40)], classifier.mean, classifier.scale)
    np.testing.assert_allclose(classifier.landmarks, expected, atol=1e-3)


def test_statistics_do_not_depend_on_the_number_of_threads() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 4), dtype=np.uint8)
    one, three = (statistics_of(images, GROUPS, threads, progress=False) for threads in (1, 3))
    assert np.array_equal(one, three)
    expected = image_statistics(torch.from_numpy(images).permute(0, 3, 1, 2), GROUPS)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


def test_the_configuration_knows_all_groups() -> None:
    assert STATISTICS == GROUPS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features=[]", r"features=\[\]: expected different names among colours, derivatives"),
        ("features=[deep]", r"features=\[deep\]: expected different names"),
        ("classifier=tree", "classifier=tree: expected kernel or linear"),
        ("fusion=[a]", r"fusion=\[a\]: expected a CNN run and a statistics run"),
        ("trainer.device=cuda", "trainer.device=cuda: statistics runs on the CPU"),
        ("data.train_size=12", r"Too few training images of pixel diffusion \(2\).* needs 3 or more of each class"),
    ],
)
def test_values_that_cannot_be_used_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(override)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18), NPY, None])
def test_a_damaged_model_is_refused_in_one_line(finished: Path, content: bytes | None) -> None:
    path = finished / "model.npz"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match="out/model.npz: no model of deepfake-cls statistics") as caught:
        read_model(finished)
    assert "pickle" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mean", "groups", "extra"])
def test_pickles_in_a_model_are_refused(finished: Path, name: str) -> None:
    with np.load(finished / "model.npz") as file:
        arrays = dict(file)
    np.savez(finished / "model.npz", **arrays | {name: np.array([object()])}, allow_pickle=True)
    with pytest.raises(InputError, match="no model of deepfake-cls statistics .it contains more than plain arrays"):
        read_model(finished)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coefficients", np.full((40, 5), np.nan), "coefficients contains numbers that are not finite"),
        ("coefficients", np.zeros((40, 4)), r"coefficients is float64 \(40, 4\); expected float64 \(40, 5\)"),
        ("coefficients", np.zeros((40, 5), np.float32), "coefficients is float32"),
        ("mean", np.zeros(3), r"mean is float64 \(3,\); expected float64 \(989\)"),
        ("scale", np.zeros(989), "scale contains numbers that are not above 0"),
        ("intercept", None, "intercept is missing"),
        ("temperature", np.array("hot"), r"temperature is str_ \(\); expected float64 \(\)"),
        ("temperature", np.array(0.0), "temperature contains numbers that are not above 0"),
        ("groups", np.array(GROUPS[::-1]), "groups are cooccurrences, .*; expected those of result.json, colours"),
        ("groups", np.array(["deep"]), "groups are deep; expected those of result.json"),
        ("groups", np.arange(5), "groups is int64"),
        ("classes", np.array(["a", "b"]), "classes are a, b; expected those of result.json"),
        ("size", np.array([24.0, 24.0]), "size is float64"),
        ("trained_on", np.zeros((2, 2), np.uint64), "trained_on is uint64"),
        ("held_out", np.zeros(2), "held_out is float64"),
        ("fusion_weight", np.array([0.5]), r"fusion_weight is float64 \(1,\); expected float64 \(\)"),
        ("fusion_weight", np.array(-1.0), "fusion_weight is -1; expected 0 or more"),
        ("fusion_weight", np.array(0.5), "fusion_temperature is missing"),
    ],
)
def test_a_model_with_wrong_content_is_refused(finished: Path, name: str, value: object, message: str) -> None:
    with np.load(finished / "model.npz") as file:
        arrays = {**file, name: value}
    np.savez(finished / "model.npz", **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=f"out/model.npz: no model of deepfake-cls statistics .{message}"):
        read_model(finished)


def test_the_command_prints_the_importance_and_imports_no_lightning() -> None:
    code = (
        f"import sys; sys.argv[1:] = {[*SMALL, 'run_dir=out']};"
        "import runpy; runpy.run_module('deepfake_cls.statistics', run_name='__main__');"
        "assert 'lightning' not in sys.modules, 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "importance, cooccurrences" in done.stdout
    assert "hardest pair" in done.stdout
    assert "next: deepfake-cls report data.workers=1 data.train_size=40 " in done.stdout


def test_the_cross_validation_of_the_command_divides_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 2)):
        for label in "ab":
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{number % 4}-{number}.png")
    seen: list[Any] = []
    real = statistics_classifier.stratified_folds

    def spy(labels: NDArray[np.int64], rng: np.random.Generator, groups: NDArray[np.int64] | None = None) -> Any:
        seen.append(groups)
        return real(labels, rng, groups)

    monkeypatch.setattr(statistics_classifier, "stratified_folds", spy)
    data = [
        "data=folder",
        f"data.root={tmp_path / 'data'}",
        f"data.cache={tmp_path / 'cache'}",
        "trainer.progress=false",
    ]
    statistics.run(
        configure("statistics", StatisticsConfig, *data, 'data.group_pattern="train/./(.)"', "run_dir=g"), False
    )
    assert len({*seen[0].tolist()}) == 4  # of the images of train
    with pytest.raises(InputError, match="The training images are of 1 group; the cross-validation"):
        statistics.run(
            configure("statistics", StatisticsConfig, *data, 'data.group_pattern="(train)"', "run_dir=h"), False
        )
