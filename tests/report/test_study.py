from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepfake_cls.config import conf_dir
from deepfake_cls.records import Record, read_record
from deepfake_cls.report import study
from deepfake_cls.report.collect import Finished, collect
from deepfake_cls.report.study import declared, fill, without_repeats
from deepfake_cls.run_key import hashed_config
from deepfake_cls.validation import validate
from tests.conftest import ROOT
from tests.report.lab import CPU, FOLDS, TINY, arm, composed, fold, repeat, study_of, write, write_all

GPU = ("some gpu", "bf16-mixed", 8)
SCALES = ("tiny", "small", "reference")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def changed_keys(kind: str, one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    a, b = (flat(hashed_config(kind, tree)) for tree in (one, other))
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def seeds(found: dict[int, Finished]) -> list[int]:
    return list(found)


@pytest.mark.parametrize("scale", SCALES)
def test_every_declared_arm_changes_one_key_at_every_scale(scale: str) -> None:
    found = declared([f"scale={scale}"])
    assert found.scale == scale
    assert set(found.experiments) == {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}
    for experiment in found.experiments.values():
        kind, words = ("knn", ()) if experiment.entry == "knn" else ("cnn", (f"scale={scale}",))
        central = composed(kind, *words)
        assert 0 <= experiment.baseline < len(experiment.arms)
        assert len({one.words for one in experiment.arms}) == len(experiment.arms) >= 2
        changes = [changed_keys(kind, composed(kind, *words, *one.words), central) for one in experiment.arms]
        if experiment.name == "table6_controls":  # apart from all else: R, G and B without traces
            assert all(keys - {"channels"} == {"data.strength", "data.alpha"} for keys in changes)
            continue
        assert max(map(len, changes)) == 1, experiment.name
        assert sum(not keys for keys in changes) == 1, experiment.name
        if experiment.table != 6:
            assert not changes[experiment.baseline]  # table 6 compares with RGB, the rest with the report's own


def test_a_sweep_gives_as_many_runs_as_arms_and_seeds() -> None:
    counts = {name: len(experiment.arms) for name, experiment in declared(TINY).experiments.items()}
    expected = {"table1_knn": 2, "table4_lr": 3, "table5_dropout": 3, "table6_alpha": 3, "table6_controls": 3}
    assert counts == {**expected, "table10_components": 6}


def test_an_arm_too_many_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(conf_dir(), tmp_path / "conf")
    file = tmp_path / "conf" / "experiment" / "table5_dropout.yaml"
    file.write_text(file.read_text().replace("hydra:", "    - {label: one more}\nhydra:"))
    monkeypatch.setattr(study, "conf_dir", lambda: tmp_path / "conf")
    with pytest.raises(ValueError, match="zip"):
        declared(TINY)


@pytest.mark.parametrize(
    ("scale", "rates"),
    [("reference", (1e-4, 3e-4, 1e-3)), ("small", (6.7e-4, 2e-3, 6.7e-3)), ("tiny", (1.3e-3, 4e-3, 1.3e-2))],
)
def test_learning_rates_of_table_4(scale: str, rates: tuple[float, ...]) -> None:
    arms = declared([f"scale={scale}"]).experiments["table4_lr"].arms
    assert tuple(composed("cnn", f"scale={scale}", *one.words)["lr"] for one in arms) == rates
    assert rates[1] == composed("cnn", f"scale={scale}")["lr"]
    assert rates[0] / rates[1] == pytest.approx(1 / 3, rel=0.03)
    assert rates[2] / rates[1] == pytest.approx(10 / 3, rel=0.03)


def test_reported_figures_are_the_reports() -> None:
    found = declared(TINY)
    told = {name: [one.reported for one in e.arms] for name, e in found.experiments.items()}
    assert told["table4_lr"] == [0.912, 0.943, 0.928]
    assert told["table5_dropout"] == [0.915, 0.943, 0.931]
    assert told["table6_alpha"] == [0.921, 0.943, None]
    assert [one.reported_train for one in found.experiments["table5_dropout"].arms] == [0.981, 0.958, 0.932]
    assert found.experiments["table1_knn"].by_k == {3: 0.298, 5: 0.297, 7: 0.276, 9: 0.291, 11: 0.288}


def test_runs_are_found_wherever_and_however_they_were_made(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "lr=0.0013"], 0, folder="by hand/deep/er")
    write(tmp_path, [*TINY, "experiment=table4_lr", "lr=0.0013"], 1, folder="sweep/0")
    write(tmp_path, [*TINY, "experiment=table5_dropout", "dropout=0.3"], 2)
    write(tmp_path, [*TINY, "experiment=table10_components", "arm=no_cutmix"], 2)
    write(tmp_path, ["experiment=table1_knn", "shift=2"], kind="knn")
    found = study_of(tmp_path)
    assert seeds(arm(found, "table4_lr", "a third").runs) == [0, 1]
    central = found.central.runs[2]
    for name, label in (
        ("table4_lr", "the scale's own"),
        ("table5_dropout", "dropout 0.3"),
        ("table6_alpha", "RGBA, corners"),
        ("table10_components", "the report's recipe"),
    ):
        shared = arm(found, name, label).runs
        assert seeds(shared) == [2]
        assert shared[2] is central
    assert seeds(arm(found, "table10_components", "without CutMix").runs) == [2]
    assert seeds(arm(found, "table1_knn", "moved").runs) == [0]
    assert not arm(found, "table1_knn", "as they are").runs
    assert sum(len(one.runs) for e in found.experiments.values() for one in e.arms) == 2 + 4 + 1 + 1
    assert found.left_out == 0
    assert found.hardware == {"cnn": CPU, "knn": CPU}


def test_other_settings_are_other_runs(tmp_path: Path) -> None:
    words = ["lr=0.0041", "epochs=5", "data.train_size=2501", "data.seed=1", "data.strength=0.5", "width=9"]
    words += ["augment.flip.p=0.4", "trainer.curve_images=10", "batch_size=32"]
    for word in words:
        write(tmp_path, [*TINY, word])
    found = study_of(tmp_path)
    assert not found.central.runs
    assert not any(one.runs for e in found.experiments.values() for one in e.arms)
    assert found.left_out == 0


@pytest.mark.parametrize("changed", [{"digests": {"init": "ab"}}, {"result_version": 0}])
def test_other_initial_weights_or_another_version_of_results_are_other_runs(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, TINY, 0)
    path = write(tmp_path, TINY, 1) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert seeds(study_of(tmp_path).central.runs) == [0]


def test_runs_from_given_weights_fill_the_arms_of_a_report_that_names_them(tmp_path: Path) -> None:
    Path("weights.ckpt").write_bytes(b"weights")
    path = write(tmp_path, [*TINY, "init=weights.ckpt"], 0) / "result.json"
    digest = hashlib.sha256(b"weights").hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digests": {"init": digest}}))
    assert seeds(study_of(tmp_path, [*TINY, "init=weights.ckpt"]).central.runs) == [0]


def test_where_and_how_conveniently_does_not_matter(tmp_path: Path) -> None:
    away = [
        "data=unibuc",
        "data.root=there",
        "data.fold=0",
        "trainer.curve_images=100",
        "data.cache=c",
        "data.workers=3",
        "data.verify=true",
    ]
    away += ["run_dir=r", "force=true", "tta=none"]
    away += ["trainer.threads=2", "trainer.device=cpu", "trainer.precision=32-true", "trainer.progress=false"]
    write(tmp_path, [*TINY, *away])
    assert seeds(study_of(tmp_path, FOLDS).central.runs) == [0]


def test_neighbours_know_nothing_of_how_training_is_watched(tmp_path: Path) -> None:
    # The report is called with the words of training, which neighbours were not.
    write(tmp_path, ["data=unibuc", "data.root=x", "data.fold=0", "trainer.deterministic=true"], kind="knn")
    found = study_of(tmp_path, FOLDS)
    assert seeds(arm(found, "table1_knn", "as they are").runs) == [0]


def test_the_hardware_with_the_most_runs_stands_alone(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, TINY, seed, hardware=CPU)
    odd = [("other cpu", *CPU[1:]), (CPU[0], "bf16-mixed", 2), (*CPU[:2], 1), GPU]
    for place, hardware in enumerate(odd):
        write(tmp_path, TINY, 2 + place, hardware=hardware)
    write(tmp_path, (), kind="knn", hardware=GPU)
    found = study_of(tmp_path)
    assert seeds(found.central.runs) == [0, 1]
    assert found.hardware == {"cnn": CPU, "knn": GPU}
    assert found.left_out == 4  # runs, although four experiments share the arm


def test_as_many_runs_here_as_there_depend_on_no_order(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, hardware=CPU)
    write(tmp_path, TINY, 1, hardware=GPU)
    records = collect(tmp_path)
    ways = [fill([*TINY], order) for order in (records, records[::-1])]
    assert ways[0].hardware == ways[1].hardware
    assert seeds(ways[0].central.runs) == seeds(ways[1].central.runs)
    assert len(ways[0].central.runs) == ways[0].left_out == 1


def test_images_are_never_mixed(tmp_path: Path) -> None:
    rgb = [*TINY, "arm=rgb"]
    write(tmp_path, TINY, 0, fingerprint="old", time=1)
    write(tmp_path, rgb, 0, fingerprint="old", time=2)
    write(tmp_path, TINY, 1, fingerprint="new", time=3)
    write(tmp_path, TINY, 1, fingerprint="old", time=2)
    found = study_of(tmp_path)
    assert seeds(found.central.runs) == [1]
    assert found.central.runs[1].record.data["fingerprint"] == "new"
    assert not arm(found, "table6_alpha", "RGB").runs  # an arm's old images beside the other's new ones
    assert found.left_out == 3


def test_images_of_other_hardware_or_of_a_failed_run_decide_nothing(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, TINY, seed, time=seed)
    write(tmp_path, TINY, 2, fingerprint="new", hardware=GPU, time=10)
    write(tmp_path, TINY, 3, error="boom", time=11)
    found = study_of(tmp_path)
    assert seeds(found.central.runs) == [0, 1]
    assert found.left_out == 1


def test_controls_have_images_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "arm=control_rgb"], fingerprint="masked", time=1)
    write(tmp_path, [*TINY, "arm=control_informative"], fingerprint="informative", time=2)
    found = study_of(tmp_path)
    assert seeds(arm(found, "table6_controls", "RGB").runs) == [0]
    assert seeds(arm(found, "table6_controls", "informative").runs) == [0]
    assert found.left_out == 0


def test_controls_are_for_embedded_data_only(tmp_path: Path) -> None:
    write(tmp_path, [*fold(0), "arm=rgb"])
    found = study_of(tmp_path, FOLDS)
    assert seeds(arm(found, "table6_alpha", "RGB").runs) == [0]
    assert not arm(found, "table6_controls", "RGB").runs


def test_of_two_runs_of_one_seed_the_newest_counts(tmp_path: Path) -> None:
    write(tmp_path, TINY, folder="z", time=1)
    newer = write(tmp_path, TINY, folder="a", time=2)
    assert study_of(tmp_path).central.runs[0].path == newer


def test_a_failure_is_no_result_and_a_good_run_no_failure(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, error="first", folder="a", time=1)
    write(tmp_path, TINY, 0, error="ValueError: second", folder="b", time=2)
    write(tmp_path, TINY, 1, error="boom", folder="c", time=1)
    write(tmp_path, TINY, 1, folder="d", time=2)
    write(tmp_path, TINY, 2, folder="e", time=1)
    write(tmp_path, TINY, 2, error="boom", folder="f", time=2)
    found = study_of(tmp_path)
    assert found.central.failed == {0: "ValueError: second"}
    assert seeds(found.central.runs) == [1, 2]


def test_each_seed_may_have_its_own_fold(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, fold(seed), seed, fingerprint=f"fold {seed}")
    write(tmp_path, fold(1), 3)
    found = study_of(tmp_path, FOLDS)
    assert seeds(found.central.runs) == [0, 1, 2]
    assert found.left_out == 0


def test_foreign_records_are_no_runs(tmp_path: Path) -> None:
    path = write(tmp_path, TINY)
    good = collect(tmp_path)
    others = [
        Finished(path, Record("evaluate", "ok", "e" * 64, composed("cnn", *TINY), versions={}, git={}), 5),
        Finished(path, Record("cnn", "failed", "c" * 64, {}, error="x", versions={}, git={}), 6),
        Finished(path, Record("knn", "failed", "d" * 64, {"data": {}}, error="x", versions={}, git={}), 7),
    ]
    found = fill([*TINY], good + others)
    assert seeds(found.central.runs) == [0]
    assert not found.central.failed
    assert (found.left_out, found.hardware) == (0, {"cnn": CPU})


def test_checks_of_types_do_not_grow_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, TINY)
    first = collect(tmp_path)[0]
    config, data = composed("cnn", *TINY), first.record.data
    made = [
        Finished(
            path,
            Record(
                "cnn",
                "ok",
                f"{seed:064x}",
                config | {"seed": seed},
                seed=seed,
                data=data,
                device=CPU[0],
                precision=CPU[1],
                threads=CPU[2],
                versions={},
                git={},
            ),
            seed,
        )
        for seed in range(500)
    ]
    calls: list[str] = []

    def counted(*args: Any) -> Any:
        calls.append("validate")
        return validate(*args)

    monkeypatch.setattr(study, "validate", counted)
    counts = []
    for size in (1, 500):
        calls.clear()
        assert len(fill([*TINY], made[:size]).central.runs) == size
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_every_record_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepfake_cls.report import collect as module

    first = write(tmp_path, TINY)
    for place in range(20):
        shutil.copytree(first, tmp_path / f"copy {place}")
    read: list[Path] = []

    def counted(folder: Path) -> Record:
        read.append(folder)
        return read_record(folder)

    monkeypatch.setattr(module, "read_record", counted)
    assert len(collect(tmp_path)) == len(read) == len(set(read)) == 21


def test_conf_holds_no_arm_that_no_experiment_uses() -> None:
    used = {word for e in declared(TINY).experiments.values() for one in e.arms for word in one.words}
    assert {f"arm={file.stem}" for file in (conf_dir() / "arm").glob("*.yaml")} <= used


def test_what_a_table_still_needs_is_said(tmp_path: Path) -> None:
    write_all(tmp_path, seeds=2)
    whole = study_of(tmp_path)
    assert whole.missing(2) == []
    assert len(whole.missing(3)) == sum(len(e.arms) for e in whole.experiments.values() if e.entry == "train") + 1
    shutil.rmtree(arm(whole, "table6_alpha", "RGB").runs[1].path)
    one_less = study_of(tmp_path)
    gone = ["table6_alpha (RGB), seed 1"]
    assert one_less.missing(2) == one_less.missing(2, 6) == gone
    assert [one_less.missing(2, table) for table in (1, 2, 4, 7, 8, 10)] == [[]] * 6
    for entry in whole.central.runs.values():
        shutil.rmtree(entry.path)
    assert study_of(tmp_path).missing(2, 9) == [
        "the central arm (central), seed 0",
        "the central arm (central), seed 1",
    ]
    shutil.rmtree(tmp_path / "knn")
    assert [text.split(",")[0] for text in study_of(tmp_path).missing(0, 7)] == [
        "table1_knn (as they are)",
        "table1_knn (moved by two pixels)",
    ]


def test_a_run_that_is_older_than_a_key_counts_as_one_with_its_default(tmp_path: Path) -> None:
    trainer = composed("cnn", *TINY)["trainer"]
    old = {key: value for key, value in trainer.items() if key != "compile"}
    write(tmp_path, seed=0, changed={"trainer": old})
    write(tmp_path, seed=1, changed={"trainer": trainer | {"compile": True}})
    assert seeds(fill([*TINY], collect(tmp_path)).central.runs) == [0]


def test_a_repeated_run_is_one_result(tmp_path: Path) -> None:
    write(tmp_path, ["data.workers=1"], kind="knn", folder="before", time=1)
    write(tmp_path, TINY, 0, folder="cnn", time=2)
    repeat(write(tmp_path, ["data.workers=2"], kind="knn", folder="after", time=3), time=3)
    assert [entry.path.name for entry in without_repeats(collect(tmp_path))] == ["cnn", "after"]


def test_what_differs_is_another_result(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, folder="first", time=1)
    write(tmp_path, TINY, 1, folder="seed", time=2)
    write(tmp_path, TINY, 0, fingerprint="e" * 64, folder="data", time=3)
    write(tmp_path, TINY, 0, hardware=GPU, folder="hardware", time=4)
    write(tmp_path, [*TINY, "lr=1"], 0, folder="setting", time=5)
    for checkpoint in ("one", "two"):
        write(tmp_path, TINY, 0, changed={"checkpoint_sha256": checkpoint}, folder=checkpoint, time=6)
    for folder in ("failed", "failed again"):
        write(tmp_path, TINY, 0, error="boom", folder=folder, time=7)
    records = collect(tmp_path)
    assert without_repeats(records) == records
