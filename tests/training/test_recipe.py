"""What ``recipe=best`` adds: averaged weights, recomputed statistics of batch normalisation, selective weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import batch_norm as benchmark
from deepfake_cls import evaluate, train
from deepfake_cls.checkpoints import load_model, read_checkpoint, weights
from deepfake_cls.config import EvaluateConfig, TrainConfig
from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store
from deepfake_cls.inference import logits_of
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.stats.metrics import score
from deepfake_cls.training import batch_norm, results
from deepfake_cls.training import fit as fit_module
from deepfake_cls.training.module import Classifier
from tests.builders import classifier
from tests.conftest import SMALL_DATA, SMALL_NET, configure, stopped_after
from tests.test_train import assert_equal, outcome

BEST = [*SMALL_DATA, *SMALL_NET, "data.image_size=16", "arm=best", "recipe.ema=0.5"]
Weights = dict[str, Tensor]


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *overrides), False)


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Weights]]:
    """A finished run of ``arm=best``, and its weights after each step; do not change it."""
    folder = tmp_path_factory.mktemp("best") / "run"
    steps: list[Weights] = []
    inner = Classifier.on_train_batch_end

    def keep(self: Classifier, *args: Any) -> None:
        steps.append({name: value.clone() for name, value in self.network.state_dict().items()})
        inner(self, *args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patched.setattr(Classifier, "on_train_batch_end", keep)
        fit(*BEST, f"run_dir={folder}")
    return folder, steps


def test_the_average_of_the_weights_is_saved(best: tuple[Path, list[Weights]]) -> None:
    folder, steps = best
    assert len(steps) == 6
    saved = weights(read_checkpoint(folder / "checkpoints" / "last.ckpt"))
    parameters = [name for name, _ in load_model(folder / "checkpoints" / "last.ckpt").network.named_parameters()]
    for name in parameters:
        average = steps[0][name]
        for step in steps[1:]:
            average = 0.5 * average + 0.5 * step[name]
        torch.testing.assert_close(saved[name], average)
    assert not all(torch.equal(saved[name], steps[-1][name]) for name in parameters)


def test_the_saved_weights_are_those_that_are_scored(best: tuple[Path, list[Weights]]) -> None:
    checkpoint = best[0] / "checkpoints" / "last.ckpt"
    data = [*SMALL_DATA, "data.image_size=16", "trainer.threads=1", "trainer.progress=false"]
    evaluate.run(configure("evaluate", EvaluateConfig, *data, f"checkpoint={checkpoint}", "run_dir=scored"), False)
    probs = read_predictions(Path("scored/predictions.npz"))[2]
    assert np.allclose(probs, read_predictions(best[0] / "predictions.npz")[2], atol=1e-6)


def test_in_bf16_the_saved_weights_are_those_that_are_scored() -> None:
    """CPUs without bf16 compute it too, only slowly, so this runs anywhere."""
    fit(*BEST, "run_dir=half", "trainer.precision=bf16-mixed")
    record = read_record(Path("half"))
    assert record.precision == "bf16-mixed"
    saved = weights(read_checkpoint("half/checkpoints/last.ckpt"))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in saved.values() if value.ndim)
    data = [*SMALL_DATA, "data.image_size=16", "trainer.threads=1", "trainer.progress=false"]
    data += ["checkpoint=half/checkpoints/last.ckpt", "trainer.precision=bf16-mixed", "batch_size=64"]
    evaluate.run(configure("evaluate", EvaluateConfig, *data, "run_dir=scored"), False)
    probs = read_predictions(Path("scored/predictions.npz"))[2]
    assert np.array_equal(probs, read_predictions(Path("half/predictions.npz"))[2])


@pytest.mark.parametrize("step", [2, 3, 5])
def test_stopped_and_resumed_equals_uninterrupted(step: int, best: tuple[Path, list[Weights]]) -> None:
    with stopped_after(step):
        fit(*BEST, "run_dir=parts")
    fit(*BEST, "run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(best[0]))


def test_killed_while_scoring_resumes_with_the_averaged_weights(
    best: tuple[Path, list[Weights]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(results, "write_outputs", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            fit(*BEST, "run_dir=parts")
    fit(*BEST, "run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(best[0]))


@pytest.mark.parametrize(("source", "augmented"), [("augmented", True), ("clean", False)])
def test_the_recipe_chooses_the_images_of_the_statistics(
    source: str, augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[bool] = []

    def spy(*arguments: Any, **options: Any) -> None:
        chosen.append(options["augmented"])
        batch_norm.recompute(*arguments, **options)

    monkeypatch.setattr(fit_module, "recompute", spy)
    fit(*BEST, "epochs=1", "run_dir=out", f"recipe.batch_norm={source}")
    assert chosen == [augmented]


def pixels(count: int, channels: int = 3) -> Pixels:
    images = np.random.default_rng(0).integers(0, 256, (count, 20, 20, channels), np.uint8)
    labels = np.arange(count) % 3
    store = Store(images, "", np.arange(count), ())
    return Pixels(SplitImages(tuple(map(str, range(count))), labels, store), "RGB")


@pytest.mark.parametrize("augmented", [False, True])
def test_recomputed_statistics_are_means_over_batches(augmented: bool) -> None:
    mirrored = {"flip": {"p": 1.0}, "cutmix": {"p": 1.0, "alpha": 1.0}}  # CutMix is omitted
    model = classifier("RGB", augment=mirrored, dropout=0.5).eval()
    data = pixels(10)
    with torch.no_grad():
        model.network.get_submodule("bn").running_mean.fill_(7.0)  # type: ignore[operator]
    batch_norm.recompute(model, data, 5, "32-true", augmented)
    order = torch.from_numpy(np.concatenate([b.indices for b in loaded(data, model)]))
    images = torch.from_numpy(data.split.store.images).permute(0, 3, 1, 2)[order]
    convolved = model.network.get_submodule("conv")((images.flip(3) if augmented else images) / 127.5 - 1)
    bn = model.network.get_submodule("bn")
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    halves = convolved.view(2, 5, 8, 20, 20)
    torch.testing.assert_close(bn.running_mean, convolved.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(bn.running_var, halves.var(dim=(1, 3, 4)).mean(dim=0))
    assert bn.momentum == 0.1
    assert not any(module.training for module in model.network.modules())


def loaded(data: Pixels, model: Classifier) -> Any:
    batches = Batches(data, 5, model.seed, limit=batch_norm.IMAGES)
    batches.epoch = model.epochs
    return batches


def test_a_last_batch_of_one_image_is_left_out_of_the_statistics() -> None:
    best_model = {"name": "texturenet", "args": {"statistics": []}}
    model = classifier("RGB", augment={}, model=best_model).eval()
    batch_norm.recompute(model, pixels(6), 5, "32-true", augmented=True)
    assert torch.isfinite(logits_of(model.network, torch.zeros(1, 20, 20, 3, dtype=torch.uint8), "32-true")).all()


def test_the_papers_recipe_reports_both_accuracies(finished_paper: Path) -> None:
    record = read_record(finished_paper)
    _, labels, recomputed = read_predictions(finished_paper / "predictions.npz", "probs_recomputed")
    probs = read_predictions(finished_paper / "predictions.npz")[2]
    assert record.metrics["val_acc_recomputed"] == score(labels, recomputed).metrics["acc"]
    assert not np.allclose(recomputed, probs)
    # The weights that are saved and scored keep the running statistics.
    network = load_model(finished_paper / "checkpoints" / "last.ckpt").network
    raw = read_checkpoint(finished_paper / "checkpoints" / "last.ckpt")["state_dict"]
    assert torch.equal(network.get_buffer("bn.running_mean"), raw["network.bn.running_mean"])
    assert int(raw["network.bn.num_batches_tracked"]) == 6


@pytest.fixture(scope="module")
def finished_paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        fit(*SMALL_DATA, *SMALL_NET, "data.image_size=16", "tta=none", f"run_dir={folder}")
    return folder


def test_flip_tta_that_is_added_keeps_the_recomputed_probabilities(
    finished_paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(finished_paper, "run")
    before = read_predictions(Path("run/predictions.npz"), "probs_recomputed")[2]
    fit(*SMALL_DATA, *SMALL_NET, "data.image_size=16", "tta=flip", "run_dir=run")
    assert "adding tta=flip" in capsys.readouterr().out
    assert np.array_equal(read_predictions(Path("run/predictions.npz"), "probs_recomputed")[2], before)


def test_weight_decay_can_leave_out_biases_and_normalisation() -> None:
    (everything,) = classifier().configure_optimizers()["optimizer"].param_groups
    assert everything["weight_decay"] == 1e-4
    model = classifier(weight_decay=0.5, decay_all=False)
    decayed, others = model.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    kinds = {id(p): type(m) for m in model.network.modules() for p in m.parameters(recurse=False)}
    assert {kinds[id(p)] for p in decayed["params"]} == {nn.Conv2d, nn.Linear}
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    assert {names[id(p)] for p in others["params"] if kinds[id(p)] is nn.Linear} == {"fc1.bias", "fc2.bias"}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_the_benchmark_repeats_the_accuracies_of_a_run(
    finished_paper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = read_record(finished_paper).metrics
    found = benchmark.accuracies(finished_paper, threads=1)
    assert found["running"] == metrics["val_acc"]
    assert found["augmented"] == metrics["val_acc_recomputed"]
    benchmark.main([str(finished_paper), str(finished_paper), "--threads", "1"])
    assert f"{100 * found['clean']:.1f} ± 0.0" in capsys.readouterr().out
