from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls import knn
from deepfake_cls.config import KnnConfig
from deepfake_cls.data.features import features
from deepfake_cls.data.images import open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.models.knn import nearest, votes
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.stats.contrast import relative_contrast
from tests.conftest import SMALL_DATA, configure


def score(*overrides: str) -> None:
    knn.run(configure("knn", KnnConfig, *SMALL_DATA, "trainer.progress=false", *overrides), False)


@pytest.mark.parametrize("kind", ["raw", "histogram", "spectrum"])
def test_a_run_agrees_with_scikit_learn_and_writes_a_complete_record(kind: str) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    config = configure("knn", KnnConfig, *SMALL_DATA, "trainer.progress=false")
    score(f"features={kind}", "run_dir=out", "k=[1,3,5]")
    record = read_record(Path("out"))
    manifest = read_manifest(config.data)
    train, validation = (open_images(manifest, name, config.data, False) for name in ("train", "validation"))
    x, q = (
        features(split.store.images, kind, "RGB").reshape(len(split), -1).astype(np.float64)
        for split in (train, validation)
    )
    for k in (1, 3, 5):
        theirs = sklearn.KNeighborsClassifier(k, algorithm="brute").fit(x, train.labels).predict(q)
        assert record.by_k[str(k)]["val_acc"] == pytest.approx(float((theirs == validation.labels).mean()))
        if k == 5:
            probs = read_predictions(Path("out/predictions.npz"))[2]
            assert probs.argmax(axis=1).tolist() == theirs.tolist()
            assert set(np.unique(np.rint(probs * 5))) <= set(range(6))
    assert record.metrics["val_acc"] == record.by_k["5"]["val_acc"]
    assert np.trace(record.confusion) / 20 == pytest.approx(record.metrics["val_acc"])
    assert set(record.seconds) == {"total", "setup", "fit", "evaluate"}
    assert (record.kind, record.status) == ("knn", "ok")


def test_without_k_5_metrics_are_at_the_first_k() -> None:
    score("k=[3,7]", "run_dir=out")
    record = read_record(Path("out"))
    assert record.metrics["val_acc"] == record.by_k["3"]["val_acc"]
    assert list(record.by_k) == ["3", "7"]


def test_one_pass_for_all_k_equals_one_pass_each() -> None:
    score("k=[1,3,9]", "run_dir=all")
    for k in (1, 3, 9):
        score(f"k=[{k}]", f"run_dir=only{k}")
        one, every = read_record(Path(f"only{k}")), read_record(Path("all"))
        assert one.by_k[str(k)] == every.by_k[str(k)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("k=[]", r"k=\[\]: expected"),
        ("k=[0]", r"k=\[0\]: expected"),
        ("k=[3,3]", r"k=\[3,3\]: expected different"),
        ("k=[41]", r"only 40 images"),
        ("features=deep", "features=deep: expected raw, histogram or spectrum"),
        ("channels=BGR", "channels=BGR: expected RGB or RGBA"),
    ],
)
def test_values_out_of_range_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(override)


def test_shift_goes_right_and_down_and_repeats_the_edge() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    shifted = knn.shift(images, 1)[0, :, :, 0]
    assert shifted.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    assert knn.shift(images, 0) is images


def test_a_shift_makes_another_run() -> None:
    score("run_dir=plain", "k=[1]")
    score("run_dir=shifted", "k=[1]", "shift=20")
    plain, shifted = (read_record(Path(name)) for name in ("plain", "shifted"))
    assert plain.identity != shifted.identity
    assert plain.metrics["contrast"] != shifted.metrics["contrast"]
    with pytest.raises(InputError, match="shift=-1: expected 0 or more"):
        score("shift=-1")


def test_contrast_is_the_median_of_mean_over_smallest_distance() -> None:
    rng = np.random.default_rng(0)
    references = rng.integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)  # more than one block
    queries = rng.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    flat, q = references.reshape(300, -1).astype(float), queries.reshape(7, -1).astype(float)
    squared = ((q[:, None] - flat) ** 2).sum(axis=2)
    expected = np.median(np.sqrt(squared.mean(axis=1) / squared.min(axis=1)))
    distances, _ = nearest(queries, references, 1)
    assert relative_contrast(queries, references, distances[:, 0]) == pytest.approx(expected)
    assert relative_contrast(references[:5], references, np.zeros(5, np.int64)) is None


def test_the_command_line_accepts_a_list_and_does_not_import_lightning() -> None:
    arguments = [*SMALL_DATA, "k=[1,2]", "run_dir=out", "trainer.progress=false"]
    code = (
        f"import sys; sys.argv[1:] = {arguments};"
        "import runpy; runpy.run_module('deepfake_cls.knn', run_name='__main__');"
        "assert 'lightning' not in sys.modules, 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy at k = 2" in done.stdout
    assert "next: deepfake-cls report data.workers=1 data.train_size=40 " in done.stdout


def test_alpha_counts_only_with_rgba() -> None:
    images = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    images[1, ..., 3] = 255
    assert features(images, "raw", "RGB").shape == (2, 4, 4, 3)
    assert features(images, "raw", "RGBA").shape == (2, 4, 4, 4)
    distance, _ = nearest(features(images[:1], "raw", "RGBA"), features(images[1:], "raw", "RGBA"), 1)
    assert distance.item() == 16 * 255**2


def test_histogram_counts_pixels() -> None:
    image = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    image[0, 0, 0] = (255, 0, 31)  # bins 7, 0, 0
    image[0, 0, 1] = (32, 64, 255)  # bins 1, 2, 7
    counts = features(image, "histogram", "RGB")
    assert counts.shape == (1, 512)
    assert counts.sum() == 4
    assert counts[0, 0] == 2
    assert counts[0, 7 * 64] == 1
    assert counts[0, 1 * 64 + 2 * 8 + 7] == 1


def test_spectrum_peaks_at_the_frequency_of_a_grating() -> None:
    wave = 128 + 100 * np.cos(2 * np.pi * 0.2 * np.arange(100))
    images = np.repeat(np.tile(wave, (100, 1))[None, ..., None], 3, axis=-1).astype(np.uint8)
    rings = features(images, "spectrum", "RGB")[0]
    assert rings.shape == (50,)
    assert rings[1:].argmax() + 1 == 20  # 0.2 cycles a pixel is ring 20 of 50


@pytest.mark.real_data
@pytest.mark.slow
def test_real_images_agree_with_scikit_learn_label_by_label(unibuc: Path) -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    config = configure("knn", KnnConfig, "data=unibuc", f"data.root={unibuc}")
    manifest = read_manifest(config.data)
    train, validation = (open_images(manifest, name, config.data, False) for name in ("train", "validation"))
    # A part of the data, since scikit-learn needs it in float64.
    x, q, labels = train.store.images[::12], validation.store.images[::10], train.labels[::12]
    distances, indices = nearest(q, x, 12)
    flat = x.reshape(len(x), -1).astype(np.float64)
    for k, counts in zip((1, 5, 11), votes(indices, labels, 5, [1, 5, 11]), strict=True):
        theirs = sklearn.KNeighborsClassifier(k, algorithm="brute").fit(flat, labels)
        clear = distances[:, k - 1] < distances[:, k]  # no tie between the last neighbour and the next image
        assert clear.mean() > 0.99
        predicted = theirs.predict(q.reshape(len(q), -1).astype(np.float64))
        assert (predicted == counts.argmax(axis=1))[clear].all()
