from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepfake_cls.models import network
from deepfake_cls.records import read_record, write_record
from deepfake_cls.report import paper
from deepfake_cls.report import study as study_module
from deepfake_cls.report import table as registered
from deepfake_cls.report.evidence import Evidence, gather
from deepfake_cls.report.experiment import Experiment
from deepfake_cls.report.render import DASH, Table, mean_text
from deepfake_cls.report.study import Study, declared
from deepfake_cls.report.tables import all_tables, numbers, tables_of
from deepfake_cls.report.tables.network import trace_network
from deepfake_cls.stats.intervals import summarise, wilson
from deepfake_cls.stats.verdict import points
from tests.conftest import ROOT
from tests.report.fake_runs import COMPETITION, FOLDS, TINY, fold, random_correct, study_of, write


def table(study: Study, name: str) -> Table:
    return next(table for table in all_tables(study) if table.name == name)


def test_tables_without_runs_contain_dashes() -> None:
    study = declared(TINY)
    assert [table.number for table in all_tables(study)] == [2, 3]  # only these need no runs
    tables = [table for number in numbers(study) for table in tables_of(study, number)]
    assert {table.number for table in tables} == {*range(1, 12)}
    order = [table.number for table in tables if table.number is not None]
    assert order == sorted(order)
    assert len({table.name for table in tables}) == len(tables)
    for one in tables:
        assert all(len(row) == len(one.columns) for row in one.rows), one.name
    arms = next(one for one in tables if one.name == "table4_lr")
    assert arms.rows[0] == ["1/3 of the default", DASH, "91.2", DASH, DASH, DASH, "−3.1", "not tested"]
    assert arms.rows[1] == ["default", DASH, "94.3", "baseline", DASH, DASH, DASH, DASH]
    assert "claim" not in next(one for one in tables if one.name == "table10_components").columns  # without numbers
    knn = next(one for one in tables if one.number == 1)
    assert knn.rows[0] == ["3", DASH, DASH, "29.8"]
    flip = next(one for one in tables if one.number == 9)
    assert flip.rows == [[DASH, DASH, DASH, DASH, "+0.3 to +0.5", "not tested"]]
    for one in tables:
        needs_runs = one.number not in (2, 3) and not one.name.endswith("_remarks")
        assert any(note.startswith("Runs with these settings are missing: ") for note in one.notes) == needs_runs
    assert not any("0.0" in cell for one in tables if one.number not in (2, 3, 5) for row in one.rows for cell in row)


def test_cells_of_a_sweep(tmp_path: Path) -> None:
    shares = {"dropout=0.0": 0.5, "dropout=0.3": 0.9}
    for override, share in shares.items():
        for seed in (0, 1, 2):
            write(tmp_path, [*TINY, override], seed, np.arange(200) < 200 * share + seed)
    write(tmp_path, [*TINY, "dropout=0.5"], 1, error="ValueError: a\n  b | c")
    study = study_of(tmp_path)
    one = table(study, "table5_dropout")
    # 100, 101, 102 and 180, 181, 182 of 200 are correct: means 50.5 and 90.5 %, standard deviation half a point.
    assert one.rows[0][:3] == ["dropout 0", "50.5 ± 0.5 (n = 3)", "91.5"]
    assert one.rows[1] == ["dropout 0.3", "90.5 ± 0.5 (n = 3)", "94.3", "baseline", DASH, DASH, DASH, DASH]
    assert one.rows[2] == ["dropout 0.5", DASH, "93.1", DASH, DASH, DASH, "−1.2", "not tested"]
    assert one.rows[0][3].startswith("−40.0 (−")
    assert one.rows[0][5] == "worse"
    assert f"{float(one.data[0]['p_holm']):.2g}" == one.rows[0][4]
    assert "Failed: dropout 0.5, seed 1: ValueError: a b | c" in one.notes
    (verdict,) = [note for note in one.notes if note.startswith("dropout 0: ")]
    assert verdict.startswith("dropout 0: worse: −40.0 points (")
    (detail,) = one.details
    assert detail.startswith("dropout 0: 3 seeds, 200 images each.")
    d = study.evidence["table5_dropout"].rows[0].comparison
    assert d is not None
    assert f"A true difference of {100 * d.difference.detectable:.1f} points" in detail
    assert one.data[2]["failed"] == 1
    assert one.data[2]["seeds"] == 0
    assert "accuracy" not in one.data[2]
    remarks = table(study, "table5_dropout_remarks")
    assert remarks.rows[0][3:5] == ["90.0 ± 0.0 (n = 3)", "98.1"]
    assert remarks.rows[0][5] == "+39.5"
    assert remarks.rows[0][7] == "high overfitting"
    assert remarks.rows[2] == ["dropout 0.5", DASH, DASH, DASH, "93.2", DASH, DASH, "low overfitting, learns slowly"]


def test_the_paper_differences_are_tested_on_its_data(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)
        baseline = rng.random(1000) < 0.8
        write(tmp_path, COMPETITION, seed, baseline, flipped=baseline | (np.arange(1000) < 500))
        for dropout, change in (("0.0", 0.01), ("0.5", -0.012)):  # the paper: −2.8 and −1.2 points
            arm = baseline ^ (rng.random(1000) < abs(change)) & (baseline == (change < 0))
            write(tmp_path, [*COMPETITION, f"dropout={dropout}"], seed, arm)
    study = study_of(tmp_path, COMPETITION)
    one = table(study, "table5_dropout")
    assert one.columns[6:] == ["paper's difference, points", "claim"]
    assert [row[6:] for row in one.rows] == [["−2.8", "excluded"], [DASH, DASH], ["−1.2", "compatible"]]
    error = np.sqrt((0.915 * 0.085 + 0.943 * 0.057) / 1250)
    comparison = study.evidence["table5_dropout"].rows[0].comparison
    assert comparison is not None
    distance = (comparison.difference.estimate + 0.028) / np.hypot(error, comparison.difference.standard_error)
    assert f"standard error of about {100 * error:.1f} points" in one.details[2]
    assert f"It is {distance:.1f} standard errors" in one.details[2]
    assert len(one.details) == 4
    # Holm over two claims: the smaller p value counts twice.
    differences = [row.comparison.difference for row in study.evidence["table5_dropout"].rows if row.comparison]
    p = [differences[0].p_of(-0.028), differences[1].p_of(-0.012)]
    assert [one.data[0]["claim_p_holm"], one.data[2]["claim_p_holm"]] == pytest.approx([2 * p[0], max(2 * p[0], p[1])])
    assert (one.data[0]["claimed_low"], one.data[0]["claim"]) == (-0.028, "excluded")
    assert "claim" not in one.data[1]
    assert ". Claim excluded at scale tiny: −2.8 points is outside the interval of " in one.notes[0]
    assert any("taken as exact" in note for note in one.notes)
    assert table(study, "table9_tta").rows[0][4:] == ["+0.3 to +0.5", "excluded"]
    # Embedded data, other settings and single seeds test nothing.
    for overrides, reason in (([*COMPETITION, "batch_size=16"], "batch_size=16"), (TINY, "data=unibuc")):
        untested = study_of(tmp_path, overrides)
        assert reason in untested.claims_untested
        columns = next(one for one in tables_of(untested, 5) if one.name == "table5_dropout")
        assert [row[7] for row in columns.rows] == ["not tested", DASH, "not tested"]
        assert any(note.startswith("Claims are not tested: ") for note in columns.notes)


def test_one_seed_tests_no_claim_and_does_not_correct_the_others(tmp_path: Path) -> None:
    baseline = random_correct(0.8, 0, 1000)
    for seed in (0, 1, 2):
        write(tmp_path, COMPETITION, seed, baseline)
        write(tmp_path, [*COMPETITION, "dropout=0.0"], seed, baseline | (np.arange(1000) == seed))
    write(tmp_path, [*COMPETITION, "dropout=0.5"], 0, baseline)
    study = study_of(tmp_path, COMPETITION)
    assert [row[7] for row in table(study, "table5_dropout").rows] == ["excluded", DASH, "not tested"]
    comparisons = [row.comparison for row in study.evidence["table5_dropout"].rows]
    assert comparisons[0] is not None
    assert comparisons[2] is not None
    assert comparisons[2].claim_p == 1
    assert comparisons[0].claim_p == 2 * comparisons[0].difference.p_of(-0.028)  # the family is all claims


@pytest.mark.parametrize("name", ["table4_lr", "table9_tta"])
def test_verdicts_below_the_paper_scale_say_so(full_study: Study, name: str) -> None:
    for scale in ("tiny", "small"):
        notes = " ".join(table(replace(full_study, scale=scale), name).notes)
        assert f"Verdicts hold at scale {scale}, not at the paper's scale." in notes
    assert "Verdicts hold" not in " ".join(table(replace(full_study, scale="reference"), name).notes)


def test_the_csv_has_all_seeds_and_the_paired_ones(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, [*TINY, "dropout=0.0"], seed)
    for seed in (1, 2):
        write(tmp_path, TINY, seed)
    one = table(study_of(tmp_path), "table5_dropout")
    assert (one.data[0]["seeds"], one.data[0]["pairs"]) == (3, 2)
    assert len(str(one.data[0]["runs"]).split()) == 3


def test_the_best_learning_rate_is_shown_for_each_number_of_epochs(tmp_path: Path) -> None:
    rates = {"0.0013": 0.6, "0.004": 0.8, "0.013": 0.7}
    for rate in ("0.0013", "0.004", "0.013"):
        write(tmp_path, [*TINY, "epochs=15", f"lr={rate}"], 0, np.arange(200) < (150 if rate != "0.004" else 100))
    for epochs, order in (("5", 1), ("30", -1)):
        for rate, share in zip(rates, [*rates.values()][::order], strict=True):
            if (epochs, rate) != ("5", "0.0013"):
                write(tmp_path, [*TINY, f"epochs={epochs}", f"lr={rate}"], 0, np.arange(200) < 200 * share)
    study = study_of(tmp_path)
    one = table(study, "lr_by_budget_grid")
    assert (one.number, one.columns[1]) == (4, "lr=0.0013, accuracy %")
    assert one.rows == [
        ["epochs=5", DASH, "80.0 (n = 1)", "70.0 (n = 1)", DASH],  # the best rate is unknown
        ["epochs=15", "75.0 (n = 1)", "50.0 (n = 1)", "75.0 (n = 1)", "lr=0.0013, lr=0.013"],
        ["epochs=30", "70.0 (n = 1)", "80.0 (n = 1)", "60.0 (n = 1)", "lr=0.004"],
    ]
    assert [row["words"] for row in one.data][3:5] == ["epochs=15 lr=0.0013", "epochs=15 lr=0.004"]
    assert not any("lr_by_budget" in text for text in [*study.missing(2), *study.notes()])  # optional


def test_the_learning_rates_of_one_number_of_epochs_are_no_grid(full_study: Study) -> None:
    assert not any(one.name == "lr_by_budget_grid" for one in all_tables(full_study))
    assert "experiment=lr_by_budget compares 5, 15 and 30 epochs" in table(full_study, "table4_lr").notes[-1]


def test_layers_and_parameters_of_the_network(full_study: Study) -> None:
    layers, parameters = trace_network("resnet", "{}", 4, 5, 64, (100, 100))
    assert parameters == 11_087_749
    assert sum(count for *_, count in layers) == parameters
    shapes = {name: (before, after) for name, before, after, _ in layers}
    assert {name for name, *_ in paper.LAYERS} <= shapes.keys()
    assert shapes["conv"] == ("4×100×100", "64×100×100")
    assert shapes["stages.2.1"] == ("512×13×13", "512×13×13")
    assert shapes["fc2"] == ("128", "5")
    one = table(full_study, "table2_network")
    cells = {row[0]: row[1:] for row in one.rows}
    assert cells["stages.2.1"][3] == "512×12×12 → 512×12×12"
    assert cells["conv"][1] == "8×100×100"
    assert sum(line["parameters"] for line in one.data) == int(
        one.notes[0].split(" parameters")[0].split()[-1].replace(",", "")
    )
    assert "11,087,749" in one.notes[1]
    assert "returns 512×13×13; the paper says 512×12×12" in one.notes[1]


def test_any_registered_network_can_be_traced() -> None:
    @network("two layers")
    class TwoLayers(nn.Module):
        def __init__(self, in_channels: int, num_classes: int, hidden: int = 3) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, hidden))
            self.head = nn.Linear(hidden, num_classes)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.body(images.float()))
            return logits

    layers, parameters = trace_network("two layers", '{"hidden": 5}', 3, 2, 64, (8, 8))
    assert layers == [
        ("body.0", "3×8×8", "192", 0),
        ("body.1", "192", "5", 192 * 5 + 5),
        ("head", "5", "2", 5 * 2 + 2),
    ]
    assert parameters == 192 * 5 + 5 + 12


def test_settings_next_to_the_paper() -> None:
    rows = {row[0]: row[1:] for row in table(declared(["scale=reference"]), "table3_settings").rows}
    assert rows["lr"] == ["0.0003", "3e-4"]
    for key in ("width", "epochs", "dropout", "batch_size", "channels", "model.args.skips", "augment.rotation.degrees"):
        assert rows[key][0] == rows[key][1], key
    assert rows["augment.rotation.fill_alpha"] == ["mask", "mask (code)"]
    assert rows["seed"] == [DASH, "none set (code)"]


def test_settings_name_the_seeds_of_the_runs(full_study: Study) -> None:
    rows = {row[0]: row[1] for row in table(full_study, "table3_settings").rows}
    assert (rows["seed"], rows["width"], rows["epochs"], rows["lr"]) == ("0, 1, 2", "8", "4", "0.004")


def test_knn_by_k_with_intervals(full_study: Study) -> None:
    one = table(full_study, "table1_knn")
    accuracy = int(random_correct(0.85, 0).sum()) / 200 - 0.05
    low, high = wilson(round(accuracy * 200), 200)
    row = next(row for row in one.rows if row[0] == "5")
    assert row[1] == f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    assert row[2] != row[1]
    assert row[3] == "29.7"
    assert "1.25 times" in one.notes[1]


def test_knn_statistics_and_cnn(full_study: Study) -> None:
    knn, statistics, cnn = table(full_study, "table7_methods").rows
    assert statistics[0] == "image statistics"
    assert statistics[2:] == [DASH, "60.0 s", DASH, "some cpu, 32-true, 2 threads"]
    accuracy = float(random_correct(0.85, 0).mean())
    assert statistics[1].startswith(f"{100 * accuracy:.1f} (")
    assert table(full_study, "table1_knn").rows[-2:] == [
        ["image statistics, kernel", statistics[1], DASH, DASH],
        ["image statistics, linear", table(full_study, "table1_knn").rows[-1][1], DASH, DASH],
    ]
    assert knn[2:] == ["29.7", "60.0 s", "2 minutes", "some cpu, 32-true, 2 threads"]
    assert cnn[2:] == ["94.3", "61.0 s", "45 minutes", "some cpu, 32-true, 2 threads"]
    accuracies = [random_correct(0.85, seed).mean() for seed in range(3)]
    assert cnn[1] == mean_text(summarise([float(a) for a in accuracies]))


def test_recall_is_compared_with_the_paper_only_on_its_data(tmp_path: Path, full_study: Study) -> None:
    embedded = table(full_study, "table8_recall")
    assert [row[2] for row in embedded.rows] == [DASH] * 5
    assert any("not comparable" in note for note in embedded.notes)
    write(tmp_path, fold(0), 0, np.arange(200) % 5 != 3)
    competition = table(study_of(tmp_path, FOLDS), "table8_recall")
    assert [row[2] for row in competition.rows] == ["92.8", "94.8", "94.0", "100.0", "72.8"]
    recall = ("100.0", "100.0", "100.0", "0.0", "100.0")
    assert [row[1] for row in competition.rows] == [f"{share} (n = 1)" for share in recall]
    assert competition.rows[3][3] == "e_<&>%#|$ (40 of 40 errors)"
    assert competition.rows[0][3] == DASH
    assert not any("not comparable" in note for note in competition.notes)


def test_flip_tta_is_compared_on_the_same_images(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        correct = random_correct(0.6, seed)
        write(tmp_path, TINY, seed, correct, flipped=correct | (np.arange(200) % 10 == 0))
    study = study_of(tmp_path)
    one = table(study, "table9_tta")
    gain = np.mean([(~random_correct(0.6, seed) & (np.arange(200) % 10 == 0)).mean() for seed in range(3)])
    assert one.data[0]["difference"] == pytest.approx(gain)
    assert one.rows[0][2].startswith(points(float(gain)))
    assert one.rows[0][3] == one.data[0]["verdict"]
    assert one.notes[1].startswith(f"flip TTA: {one.rows[0][3]}")
    (study.main.runs[1].path / "predictions.npz").unlink()
    incomplete = table(study, "table9_tta")
    assert incomplete.rows[0][2:4] == [DASH, DASH]
    assert incomplete.notes[1].startswith("Omitted: ")


def test_runs_without_flip_tta_leave_table_9_empty(tmp_path: Path) -> None:
    write(tmp_path, TINY)
    one = table(study_of(tmp_path), "table9_tta")
    assert one.rows[0][1:4] == [DASH] * 3


def test_texts_of_numbers(tmp_path: Path) -> None:
    assert mean_text(summarise([0.5])) == "50.0 (n = 1)"
    assert mean_text(None) == DASH
    for overrides in ([], ["dropout=0.0"]):
        write(tmp_path, [*TINY, *overrides], 0)
    one = table(study_of(tmp_path), "table5_dropout")
    assert re.fullmatch(r"0\.0 \(−\d+\.\d to \+\d+\.\d\)", one.rows[0][3])


def test_controls_have_a_table_only_on_embedded_data() -> None:
    assert any(one.name == "table6_controls" for one in tables_of(declared(TINY), 6))
    assert not any("controls" in one.name for one in tables_of(declared(FOLDS), 6))


def test_registering_a_table_needs_no_heavy_import() -> None:
    code = "import sys\nfrom deepfake_cls.report import table\n"
    code += "sys.exit(bool({'torch', 'numpy', 'matplotlib', 'hydra'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.usefixtures("registries")
def test_registered_tables_are_ordered_by_number(full_study: Study) -> None:
    @registered(0)
    def first(study: Study) -> Table:
        return Table(0, "first", "First", ["runs"], [[str(len(study.main.runs))]])

    @registered(4)
    def shared(study: Study) -> list[Table]:
        return [Table(4, "a", "A", [], []), Table(4, "b", "B", [], [])]

    assert [one.name for one in tables_of(full_study, 4)] == [
        *("a", "b", "table4_lr", "table4_lr_remarks", "lr_by_budget_grid")
    ]
    everything = all_tables(full_study)
    assert everything[0].rows == [["3"]]
    order = [one.number for one in everything if one.number is not None]
    assert order == sorted(order)
    assert len(order) == len(everything) == 16 + 3


def test_evidence_is_computed_once(full_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[str] = []

    def counted(experiment: Experiment) -> Evidence:
        gathered.append(experiment.name)
        return gather(experiment)

    monkeypatch.setattr(study_module, "gather", counted)
    all_tables(full_study)
    all_tables(full_study)
    assert gathered == [*full_study.experiments]


def test_accuracy_with_recomputed_statistics_is_a_column_where_runs_have_it(tmp_path: Path) -> None:
    empty = next(one for one in tables_of(declared(TINY), 5) if one.name == "table5_dropout_remarks")
    assert "accuracy with recomputed statistics %" not in empty.columns
    for seed, accuracy in enumerate((0.8, 0.9)):
        folder = write(tmp_path, seed=seed)
        record = read_record(folder)
        record.metrics["val_acc_recomputed"] = accuracy
        write_record(folder, record)
    write(tmp_path, [*TINY, "dropout=0.5"])
    study = study_of(tmp_path)
    remarks = table(study, "table5_dropout_remarks")
    column = remarks.columns.index("accuracy with recomputed statistics %")
    assert [row[column] for row in remarks.rows] == ["–", "85.0 ± 7.1 (n = 2)", "–"]
    assert len({len(row) for row in [remarks.columns, *remarks.rows]}) == 1
    data = table(study, "table5_dropout").data[1]
    assert (data["recomputed"], data["recomputed_sd"]) == (pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4))
