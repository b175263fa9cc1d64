from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deepfake_cls.config import conf_dir
from deepfake_cls.records import Record, read_record
from deepfake_cls.report import experiment as experiment_module
from deepfake_cls.report import study as study_module
from deepfake_cls.report.collect import Finished, collect
from deepfake_cls.report.study import Study, declared, fill, without_repeats
from deepfake_cls.run_key import hashed_config
from deepfake_cls.validation import validate
from tests.conftest import ROOT
from tests.report.fake_runs import CPU, FOLDS, TINY, arm, config_of, fold, repeat, study_of, write, write_all

GPU = ("some gpu", "bf16-mixed", 8)
SCALES = ("tiny", "small", "reference")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def changed_keys(kind: str, config: dict[str, Any], other: dict[str, Any]) -> set[str]:
    a, b = (flatten(hashed_config(kind, tree)) for tree in (config, other))
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def seeds(study: Study) -> list[int]:
    """Seeds of the main arm."""
    return list(study.main.runs)


@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_changes_one_key_at_every_scale(scale: str) -> None:
    study = declared([f"scale={scale}"])
    assert study.scale == scale
    assert set(study.experiments) == {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}
    for experiment in study.experiments.values():
        kind, shared = ("cnn", (f"scale={scale}",)) if experiment.entry == "train" else (experiment.entry, ())
        main = config_of(kind, *shared)
        assert 0 <= experiment.baseline < len(experiment.arms)
        assert len({one.overrides for one in experiment.arms}) == len(experiment.arms) >= 2
        changes = [changed_keys(kind, config_of(kind, *shared, *one.overrides), main) for one in experiment.arms]
        if experiment.name == "table6_controls":  # these also remove the traces from R, G and B
            assert all(keys - {"channels"} == {"data.strength", "data.alpha"} for keys in changes)
            continue
        if experiment.name == "table11_best":
            best = config_of(kind, *shared, "arm=best")
            parts = [changed_keys(kind, config_of(kind, *shared, *one.overrides), best) for one in experiment.arms]
            assert [not keys for keys in parts] == [True] + [False] * (len(parts) - 1)
            # The second arm is the paper's; each other one differs from the best in one group.
            groups = [{key.split(".")[0] for key in keys} for keys in parts[2:]]
            assert all(len(group) == 1 for group in groups)
            assert not changes[1]
            continue
        if experiment.grid:
            assert {key for keys in changes for key in keys} <= {"epochs", "lr"}
            continue
        assert max(map(len, changes)) == 1, experiment.name
        assert sum(not keys for keys in changes) == 1, experiment.name
        if experiment.table != 6:  # table 6 compares with RGB, the others with the main arm
            assert not changes[experiment.baseline]


def test_number_of_arms() -> None:
    counts = {name: len(experiment.arms) for name, experiment in declared(TINY).experiments.items()}
    expected = {
        "table1_knn": 2,
        "table1_statistics": 2,
        "table4_lr": 3,
        "table5_dropout": 3,
        "table6_alpha": 3,
        "table6_controls": 3,
    }
    assert counts == {**expected, "table10_components": 6, "lr_by_budget": 9, "table11_best": 9}


def test_runs_on_the_same_data_are_used_whatever_its_folder_was_called(tmp_path: Path) -> None:
    here, before = ([*TINY, "data=folder", f"data.root={name}"] for name in ("/data/here", "/data/before"))
    write(tmp_path, here, 0, folder="a")
    write(tmp_path, before, 1, folder="b")
    write(tmp_path, before, 2, folder="c", fingerprint="e" * 64)
    assert seeds(study_of(tmp_path, here)) == [0, 1]


def test_a_declaration_with_too_many_arms_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(conf_dir(), tmp_path / "conf")
    file = tmp_path / "conf" / "experiment" / "table5_dropout.yaml"
    file.write_text(file.read_text().replace("hydra:", "    - {label: one more}\nhydra:"))
    monkeypatch.setattr(experiment_module, "conf_dir", lambda: tmp_path / "conf")
    with pytest.raises(ValueError, match="zip"):
        declared(TINY)


@pytest.mark.parametrize(
    ("scale", "rates"),
    [("reference", (1e-4, 3e-4, 1e-3)), ("small", (6.7e-4, 2e-3, 6.7e-3)), ("tiny", (1.3e-3, 4e-3, 1.3e-2))],
)
def test_learning_rates_of_table_4(scale: str, rates: tuple[float, ...]) -> None:
    arms = declared([f"scale={scale}"]).experiments["table4_lr"].arms
    assert tuple(config_of("cnn", f"scale={scale}", *one.overrides)["lr"] for one in arms) == rates
    assert rates[1] == config_of("cnn", f"scale={scale}")["lr"]
    assert rates[0] / rates[1] == pytest.approx(1 / 3, rel=0.03)
    assert rates[2] / rates[1] == pytest.approx(10 / 3, rel=0.03)


def test_numbers_of_the_paper() -> None:
    experiments = declared(TINY).experiments
    reported = {name: [one.reported for one in experiment.arms] for name, experiment in experiments.items()}
    assert reported["table4_lr"] == [0.912, 0.943, 0.928]
    assert reported["table5_dropout"] == [0.915, 0.943, 0.931]
    assert reported["table6_alpha"] == [0.921, 0.943, None]
    assert [one.reported_train for one in experiments["table5_dropout"].arms] == [0.981, 0.958, 0.932]
    assert experiments["table1_knn"].by_k == {3: 0.298, 5: 0.297, 7: 0.276, 9: 0.291, 11: 0.288}


def test_runs_are_assigned_by_configuration_wherever_they_are(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "lr=0.0013"], 0, folder="by hand/deep/er")
    write(tmp_path, [*TINY, "experiment=table4_lr", "lr=0.0013"], 1, folder="sweep/0")
    write(tmp_path, [*TINY, "experiment=table5_dropout", "dropout=0.3"], 2)
    write(tmp_path, [*TINY, "experiment=table10_components", "arm=no_cutmix"], 2)
    write(tmp_path, ["experiment=table1_knn", "shift=2"], kind="knn")
    study = study_of(tmp_path)
    assert list(arm(study, "table4_lr", "1/3 of").runs) == [0, 1]
    for name, label in (
        ("table4_lr", "default"),
        ("table5_dropout", "dropout 0.3"),
        ("table6_alpha", "RGBA, corners"),
        ("table10_components", "the paper's recipe"),
    ):
        shared = arm(study, name, label).runs
        assert list(shared) == [2]
        assert shared[2] is study.main.runs[2]
    assert list(arm(study, "table10_components", "without CutMix").runs) == [2]
    assert list(arm(study, "table1_knn", "shifted").runs) == [0]
    assert not arm(study, "table1_knn", "original").runs
    others = [experiment for experiment in study.experiments.values() if not experiment.optional]
    assert sum(len(one.runs) for experiment in others for one in experiment.arms) == 2 + 4 + 1 + 1
    assert study.omitted == 0
    assert study.hardware == {"cnn": CPU, "knn": CPU}


def test_without_matching_runs_the_settings_and_the_command_are_named() -> None:
    study = declared([*TINY, "data=folder", "data.root=a b"])
    settings = "scale=tiny data=folder 'data.root=a b'"
    missing = (
        f"Runs with these settings are missing: {settings}. They cannot be run here: data.root={Path('a b').absolute()}"
    )
    assert study.no_match(study.main) == [f"{missing} does not exist."]
    Path("a b").mkdir()
    start = f"Runs with these settings are missing: {settings}. To run them: deepfake-cls "
    assert study.no_match(study.main) == [f"{start}train {settings} -m seed=0,1,2"]
    sweep = study.experiments["table4_lr"]
    assert study.no_match(*sweep.arms, experiment=sweep) == [f"{start}train experiment=table4_lr {settings}"]
    knn = study.experiments["table1_knn"]  # knn has no scale
    command = "knn experiment=table1_knn data=folder 'data.root=a b'"
    assert study.no_match(*knn.arms, experiment=knn) == [f"{start}{command}"]


def test_a_key_that_an_experiment_varies_is_not_shared_by_its_arms(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "channels=RGB"])
    study = study_of(tmp_path, [*TINY, "channels=RGB"])
    alpha, rates = study.experiments["table6_alpha"], study.experiments["table4_lr"]
    assert [[*one.runs] for one in alpha.arms] == [[0], [], []]
    assert list(arm(study, "table4_lr", "default").runs) == list(study.main.runs) == [0]
    assert study.command(alpha) == "deepfake-cls train experiment=table6_alpha scale=tiny"
    assert study.command(rates) == "deepfake-cls train experiment=table4_lr scale=tiny channels=RGB"
    assert study.no_match(*alpha.arms, experiment=alpha)[0].startswith(
        "Runs with these settings are missing: scale=tiny data=synthetic. To run them"
    )


def test_matching_runs_need_no_sentence(tmp_path: Path) -> None:
    write(tmp_path, TINY)
    study = study_of(tmp_path)
    sweep = study.experiments["table4_lr"]
    assert study.no_match(study.main) == []
    assert len(study.no_match(*sweep.arms, experiment=sweep)) == 1  # one arm has nothing to compare with
    write(tmp_path, [*TINY, "lr=0.0013"])
    study = study_of(tmp_path)
    sweep = study.experiments["table4_lr"]
    assert study.no_match(*sweep.arms, experiment=sweep) == []


def test_runs_with_other_settings_are_not_assigned(tmp_path: Path) -> None:
    overrides = ["lr=0.0041", "epochs=6", "data.train_size=2501", "data.seed=1", "data.strength=0.5", "width=9"]
    overrides += ["augment.flip.p=0.4", "trainer.curve_images=10", "batch_size=32"]
    for override in overrides:
        write(tmp_path, [*TINY, override])
    study = study_of(tmp_path)
    assert not study.main.runs
    assert not any(one.runs for e in study.experiments.values() for one in e.arms)
    assert study.omitted == 0


@pytest.mark.parametrize("changed", [{"digests": {"init": "ab"}}, {"result_version": 0}])
def test_runs_with_other_initial_weights_or_result_version_are_not_assigned(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path, TINY, 0)
    path = write(tmp_path, TINY, 1) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert seeds(study_of(tmp_path)) == [0]


def test_runs_with_initial_weights_are_assigned_if_the_report_names_the_weights(tmp_path: Path) -> None:
    Path("weights.ckpt").write_bytes(b"weights")
    path = write(tmp_path, [*TINY, "init=weights.ckpt"], 0) / "result.json"
    digest = hashlib.sha256(b"weights").hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digests": {"init": digest}}))
    assert seeds(study_of(tmp_path, [*TINY, "init=weights.ckpt"])) == [0]


def test_keys_outside_the_run_key_do_not_matter(tmp_path: Path) -> None:
    overrides = [
        "data=unibuc",
        "data.root=there",
        "data.fold=0",
        "trainer.curve_images=100",
        "data.cache=c",
        "data.workers=3",
        "data.verify=true",
    ]
    overrides += ["run_dir=r", "force=true", "tta=none"]
    overrides += ["trainer.threads=2", "trainer.device=cpu", "trainer.precision=32-true", "trainer.progress=false"]
    write(tmp_path, [*TINY, *overrides])
    assert seeds(study_of(tmp_path, FOLDS)) == [0]


def test_keys_that_only_training_has_do_not_matter_for_knn(tmp_path: Path) -> None:
    # The report gets the overrides of training, of which knn has only some.
    write(tmp_path, ["data=unibuc", "data.root=x", "data.fold=0", "trainer.deterministic=true"], kind="knn")
    study = study_of(tmp_path, FOLDS)
    assert list(arm(study, "table1_knn", "original").runs) == [0]


def test_only_the_hardware_with_the_most_runs_is_used(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, TINY, seed, hardware=CPU)
    others = [("other cpu", *CPU[1:]), (CPU[0], "bf16-mixed", 2), (*CPU[:2], 1), GPU]
    for index, hardware in enumerate(others):
        write(tmp_path, TINY, 2 + index, hardware=hardware)
    write(tmp_path, (), kind="knn", hardware=GPU)
    study = study_of(tmp_path)
    assert seeds(study) == [0, 1]
    assert study.hardware == {"cnn": CPU, "knn": GPU}
    assert study.omitted == 4  # counts runs, although four experiments share the arm


def test_a_tie_between_hardware_does_not_depend_on_the_order(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, hardware=CPU)
    write(tmp_path, TINY, 1, hardware=GPU)
    records = collect(tmp_path)
    studies = [fill([*TINY], order) for order in (records, records[::-1])]
    assert studies[0].hardware == studies[1].hardware
    assert seeds(studies[0]) == seeds(studies[1])
    assert len(studies[0].main.runs) == studies[0].omitted == 1


def test_versions_of_the_data_are_not_mixed(tmp_path: Path) -> None:
    rgb = [*TINY, "arm=rgb"]
    write(tmp_path, TINY, 0, fingerprint="old", time=1)
    write(tmp_path, rgb, 0, fingerprint="old", time=2)
    write(tmp_path, TINY, 1, fingerprint="new", time=3)
    write(tmp_path, TINY, 1, fingerprint="old", time=2)
    study = study_of(tmp_path)
    assert seeds(study) == [1]
    assert study.main.runs[1].record.data["fingerprint"] == "new"
    assert not arm(study, "table6_alpha", "RGB").runs  # it has only runs on old images
    assert study.omitted == 3


def test_unused_and_failed_runs_do_not_choose_the_version_of_the_data(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, TINY, seed, time=seed)
    write(tmp_path, TINY, 2, fingerprint="new", hardware=GPU, time=10)
    write(tmp_path, TINY, 3, error="boom", time=11)
    study = study_of(tmp_path)
    assert seeds(study) == [0, 1]
    assert study.omitted == 1


def test_controls_have_their_own_images(tmp_path: Path) -> None:
    write(tmp_path, [*TINY, "arm=control_rgb"], fingerprint="masked", time=1)
    write(tmp_path, [*TINY, "arm=control_informative"], fingerprint="informative", time=2)
    study = study_of(tmp_path)
    assert list(arm(study, "table6_controls", "RGB").runs) == [0]
    assert list(arm(study, "table6_controls", "informative").runs) == [0]
    assert study.omitted == 0


def test_controls_need_embedded_data(tmp_path: Path) -> None:
    write(tmp_path, [*fold(0), "arm=rgb"])
    study = study_of(tmp_path, FOLDS)
    assert list(arm(study, "table6_alpha", "RGB").runs) == [0]
    assert not arm(study, "table6_controls", "RGB").runs


def test_the_newest_run_of_a_seed_is_used(tmp_path: Path) -> None:
    write(tmp_path, TINY, folder="z", time=1)
    newer = write(tmp_path, TINY, folder="a", time=2)
    assert study_of(tmp_path).main.runs[0].path == newer


def test_a_seed_has_failed_only_without_a_successful_run(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, error="first", folder="a", time=1)
    write(tmp_path, TINY, 0, error="ValueError: second", folder="b", time=2)
    write(tmp_path, TINY, 1, error="boom", folder="c", time=1)
    write(tmp_path, TINY, 1, folder="d", time=2)
    write(tmp_path, TINY, 2, folder="e", time=1)
    write(tmp_path, TINY, 2, error="boom", folder="f", time=2)
    study = study_of(tmp_path)
    assert study.main.failed == {0: "ValueError: second"}
    assert seeds(study) == [1, 2]


def test_each_seed_may_have_its_own_fold(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, fold(seed), seed, fingerprint=f"fold {seed}")
    write(tmp_path, fold(1), 3)
    study = study_of(tmp_path, FOLDS)
    assert seeds(study) == [0, 1, 2]
    assert study.omitted == 0


def test_records_of_other_kinds_are_not_assigned(tmp_path: Path) -> None:
    path = write(tmp_path, TINY)
    good = collect(tmp_path)
    others = [
        Finished(path, Record("evaluate", "ok", "e" * 64, config_of("cnn", *TINY), versions={}, git={}), 5),
        Finished(path, Record("cnn", "failed", "c" * 64, {}, error="x", versions={}, git={}), 6),
        Finished(path, Record("knn", "failed", "d" * 64, {"data": {}}, error="x", versions={}, git={}), 7),
    ]
    study = fill([*TINY], good + others)
    assert seeds(study) == [0]
    assert not study.main.failed
    assert (study.omitted, study.hardware) == (0, {"cnn": CPU})


def test_type_checks_do_not_grow_with_the_number_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TINY)
    (first,) = collect(tmp_path)
    config = first.record.config
    records = [
        replace(first, record=replace(first.record, identity=f"{seed:064x}", config=config | {"seed": seed}, seed=seed))
        for seed in range(50)
    ]
    calls: list[str] = []

    def counted(*args: Any) -> Any:
        calls.append("validate")
        return validate(*args)

    monkeypatch.setattr(study_module, "validate", counted)
    counts = []
    for count in (1, 50):
        calls.clear()
        assert len(fill([*TINY], records[:count]).main.runs) == count
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_each_record_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepfake_cls.report import collect as module

    first = write(tmp_path, TINY)
    for index in range(20):
        shutil.copytree(first, tmp_path / f"copy {index}")
    read: list[Path] = []

    def counted(folder: Path) -> Record:
        read.append(folder)
        return read_record(folder)

    monkeypatch.setattr(module, "read_record", counted)
    assert len(collect(tmp_path)) == len(read) == len(set(read)) == 21


def test_every_arm_file_is_used_by_an_experiment() -> None:
    used = {override for e in declared(TINY).experiments.values() for one in e.arms for override in one.overrides}
    assert {f"arm={file.stem}" for file in (conf_dir() / "arm").glob("*.yaml")} <= used


def test_missing_runs_of_a_table(tmp_path: Path) -> None:
    write_all(tmp_path, seeds=2)
    complete = study_of(tmp_path)
    assert complete.missing(2) == []
    trained = [e for e in complete.experiments.values() if e.entry == "train" and not (e.grid or e.optional)]
    assert len(complete.missing(3)) == sum(len(e.arms) for e in trained) + 1
    shutil.rmtree(arm(complete, "table6_alpha", "RGB").runs[1].path)
    one_less = study_of(tmp_path)
    missing = ["table6_alpha (RGB), seed 1"]
    assert one_less.missing(2) == one_less.missing(2, 6) == missing
    assert [one_less.missing(2, table) for table in (1, 2, 4, 7, 8, 10)] == [[]] * 6
    for run in complete.main.runs.values():
        shutil.rmtree(run.path)
    assert study_of(tmp_path).missing(2, 9) == ["main arm, seed 0", "main arm, seed 1"]
    shutil.rmtree(tmp_path / "knn")
    assert [text.split(",")[0] for text in study_of(tmp_path).missing(0, 7)] == [
        "table1_knn (original images)",
        "table1_knn (shifted by two pixels)",
    ]


def test_a_key_that_an_old_run_lacks_has_its_default(tmp_path: Path) -> None:
    trainer = config_of("cnn", *TINY)["trainer"]
    old = {key: value for key, value in trainer.items() if key != "compile"}
    write(tmp_path, seed=0, changed={"trainer": old})
    write(tmp_path, seed=1, changed={"trainer": trainer | {"compile": True}})
    assert seeds(fill([*TINY], collect(tmp_path))) == [0]


def test_only_the_newest_of_repeated_runs_is_kept(tmp_path: Path) -> None:
    write(tmp_path, ["data.workers=1"], kind="knn", folder="before", time=1)
    write(tmp_path, TINY, 0, folder="cnn", time=2)
    repeat(write(tmp_path, ["data.workers=2"], kind="knn", folder="after", time=3), time=3)
    assert [run.path.name for run in without_repeats(collect(tmp_path))] == ["cnn", "after"]


def test_different_runs_are_all_kept(tmp_path: Path) -> None:
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
