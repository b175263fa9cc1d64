from __future__ import annotations

import csv
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deepfake_cls.report import paper
from deepfake_cls.report.page import report_templates
from deepfake_cls.report.plots import table_plots
from deepfake_cls.report.render import DASH, Table, interval_text
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables import all_tables
from deepfake_cls.report.tables.claims import ARM_CLAIMS, claims_tables
from deepfake_cls.stats.verdict import points
from tests.conftest import ROOT
from tests.report.fake_runs import COMPETITION, TINY, arm, make, random_correct, render, study_of, write, write_all

SEEDS = 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of every arm on the competition's data; read-only."""
    root = tmp_path_factory.mktemp("claims")
    write_all(root, SEEDS, COMPETITION)
    return root


@pytest.fixture(scope="module")
def study(runs: Path) -> Study:
    return study_of(runs, COMPETITION)


def rows(study: Study) -> dict[str, dict[str, str]]:
    """The cells of the claims by claim and column."""
    claims: Table = claims_tables(study)[0]
    return {row[0]: dict(zip(claims.columns, row, strict=True)) for row in claims.rows}


def test_claims_and_discrepancies_stand_first(study: Study) -> None:
    tables = all_tables(study)
    assert [table.name for table in tables[:3]] == ["claims", "discrepancies", "table1_knn"]
    claims, discrepancies = tables[:2]
    assert len(claims.rows) == len(claims.data) == 12
    assert {row["claim"] for row in claims.data} == {"excluded", "compatible", "not tested"}
    assert len(discrepancies.rows) == 5
    assert claims.rows[0][2] == "not tested"  # the paper's accuracy at another scale than its own
    assert all(row[2] != "not tested" for row in claims.rows[1:])


def test_a_claim_has_the_verdict_of_its_table(study: Study) -> None:
    tables, found = {table.name: table for table in all_tables(study)}, rows(study)
    for claimed in ARM_CLAIMS:
        if claimed.experiment != "table10_components":
            cells = tables[claimed.experiment].rows[claimed.arm]
            assert found[claimed.text]["verdict"] == cells[7]
            assert found[claimed.text]["our runs (95 %)"] == f"{cells[3]}, n = 3"
            assert found[claimed.text]["paper"] == f"{cells[6]} points"
    by_name = {str(row["arm"]): row for row in tables["claims"].data}
    assert by_name["RGBA is better than RGB"]["claim_p_holm"] == tables["table6_alpha"].data[1]["claim_p_holm"]
    assert found["flip TTA improves accuracy"]["verdict"] == tables["table9_tta"].rows[0][5]


def accuracies(study: Study, label: str) -> np.ndarray:
    return np.array([run.record.metrics["val_acc"] for run in arm(study, "table10_components", label).runs.values()])


@pytest.mark.parametrize(
    ("text", "label"), [("without CutMix: more", "without CutMix"), ("without label", "without label smoothing")]
)
def test_overfitting_and_overconfidence_are_paired_over_seeds(study: Study, text: str, label: str) -> None:
    # All training accuracies and all probabilities of a predicted class are 0.9.
    d = (0.9 - accuracies(study, label)) - (0.9 - accuracies(study, "the paper's recipe"))
    row = next(row for row in claims_tables(study)[0].data if str(row["arm"]).startswith(text))
    oracle = stats.ttest_1samp(d, 0)
    assert row["difference"] == pytest.approx(d.mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(oracle.confidence_interval()))
    assert (row["claimed_low"], row["claimed_high"]) == (0, inf)


def test_the_claims_of_one_experiment_are_corrected_together(study: Study) -> None:
    data = [row for row in claims_tables(study)[0].data if str(row["arm"]).startswith("without")]
    assert len(data) == 3
    skips = study.evidence["table10_components"].rows[3].comparison
    assert skips is not None
    d = [accuracies(study, "the paper's recipe") - accuracies(study, f"without {part}") for part in ("CutMix", "label")]
    p = [1.0 if one.mean() > 0 else float(stats.ttest_1samp(one, 0).pvalue) for one in d]
    p.append(skips.difference.p_of(-1, 0))
    order, largest = np.argsort(p), 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, p[index] * (3 - step)))
        assert data[index]["claim_p_holm"] == pytest.approx(largest)


def test_knn_is_judged_over_images(study: Study) -> None:
    found = rows(study)
    assert found["accuracy of KNN on pixels, k = 5"]["verdict"] == "excluded"  # 80 % here, the paper: 29.7 %
    shifted = found["KNN on images shifted by 2 pixels is worse"]
    comparison = study.evidence["table1_knn"].rows[1].comparison
    assert comparison is not None
    assert shifted["our runs (95 %)"] == f"{interval_text(comparison.difference)}, 200 images"
    assert shifted["verdict"] != "not tested"  # though KNN has one run: it has no randomness
    assert shifted["scale"] == DASH
    assert "reference" not in shifted["to settle it"]


def test_the_accuracy_of_knn_is_compatible_inside_its_interval(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy = study.experiments["table1_knn"].arms[0].runs[0].record.metrics["val_acc"]
    for reported, verdict in ((accuracy + 0.04, "compatible"), (accuracy - 0.04, "compatible"), (0.297, "excluded")):
        monkeypatch.setattr(paper, "KNN_ACCURACY", reported)
        assert rows(study)["accuracy of KNN on pixels, k = 5"]["verdict"] == verdict


def test_figures_mark_the_differences_of_the_paper(study: Study, full_study: Study) -> None:
    def crosses(one: Study, name: str) -> list[list[float]]:
        table = next(table for table in all_tables(one) if table.name == name)
        figure, caption = table_plots(table, one)[0]
        lines = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
        assert ("Cross: the paper's difference." in caption) == bool(lines)
        return [[round(float(x), 6) for x in np.asarray(line.get_xdata())] for line in lines]

    assert crosses(study, "table5_dropout") == [[-2.8, -2.8], [-1.2, -1.2]]
    assert crosses(study, "table6_alpha") == [[2.2, 2.2]]
    assert crosses(study, "table9_tta") == [[0.3, 0.5]]
    assert crosses(study, "table10_components") == []
    assert crosses(full_study, "table5_dropout") == crosses(full_study, "table9_tta") == []


def test_the_accuracy_is_tested_at_its_own_scale(study: Study) -> None:
    assert rows(study)["accuracy of the network"]["to settle it"] == "scale=reference"
    reference = rows(replace(study, scale="reference"))
    assert reference["accuracy of the network"]["verdict"] == "excluded"
    assert reference["RGBA is better than RGB"]["to settle it"] == DASH
    study.main.runs, kept = {0: study.main.runs[0]}, study.main.runs
    one = rows(replace(study, scale="reference"))["accuracy of the network"]
    study.main.runs = kept
    assert (one["verdict"], one["to settle it"]) == ("not tested", "two seeds")


def test_missing_runs_and_undecided_claims_say_what_would_settle_them(tmp_path: Path) -> None:
    for seed in range(SEEDS):
        for dropout, share in (("0.0", 0.79), ("0.3", 0.81)):  # the paper: −2.8 points
            write(tmp_path, [*COMPETITION, f"dropout={dropout}"], seed, random_correct(share, seed, 400))
    found = rows(study_of(tmp_path, COMPETITION))
    undecided = found["dropout 0 is worse than 0.3"]
    assert undecided["verdict"] == "compatible, as is 0"
    assert undecided["to settle it"].endswith((" seeds, scale=reference", " images, scale=reference"))
    skips = found["without skips: worse"]
    assert skips == {
        "claim of the paper": "without skips: worse",
        "paper": "less than 0",
        "verdict": "not tested",
        "our runs (95 %)": DASH,
        "scale": "tiny",
        "to settle it": "experiment=table10_components, scale=reference",
    }
    assert found["accuracy of KNN on pixels, k = 5"]["to settle it"] == "experiment=table1_knn"
    assert found["flip TTA improves accuracy"]["to settle it"] == "tta=flip, scale=reference"


def test_other_data_and_settings_have_no_claims(full_study: Study, runs: Path) -> None:
    assert claims_tables(full_study) == []
    assert claims_tables(study_of(runs, [*COMPETITION, "batch_size=16"])) == []


@pytest.mark.usefixtures("no_figures", "no_images")
def test_the_report_shows_claims_first(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = render(f"runs={runs}", *COMPETITION, "output=reports")
    text = Path("reports/tables.md").read_text()
    assert text.startswith("### Claims of the paper\n")
    assert text.index("### What does not add up") < text.index("### Table 1")
    assert page.index('id="claims"') < page.index("<h2>Accuracy</h2>") < page.index('id="table4_lr"')
    assert '<a href="#claims">' in page
    assert '<span class="chip excluded">excluded</span>' in page
    assert '<span class="chip not-tested">not tested</span>' in page
    assert "Discrepancies in the paper" not in page
    assert page.count("1,136 of 1,250") == 1
    lines = Path("reports/tables.csv").read_text().splitlines()
    assert lines[1].startswith(",claims,accuracy of the network,")
    make(f"runs={runs}", *TINY, "output=other")
    assert "Claims of the paper" not in Path("other/tables.md").read_text()


@pytest.mark.parametrize(
    ("cell", "chip"),
    [
        ("excluded", "excluded"),
        ("compatible", "compatible"),
        ("compatible, as is 0", "undecided"),  # no colour, unlike a claim that is supported
        ("not tested", "not-tested"),
        ("better", "better"),
        ("baseline", ""),
        ("94.3", ""),
    ],
)
def test_verdicts_have_chips(cell: str, chip: str) -> None:
    assert report_templates().filters["chip"](cell) == chip


def committed() -> list[dict[str, str]]:
    with (ROOT / "experiments" / "results" / "unibuc_small_tables.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["experiment"] == "claims"]


@pytest.mark.parametrize(("page", "least"), [("experiments/README.md", 12), ("README.md", 6)])
def test_the_documents_have_the_committed_verdicts(page: str, least: int) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    text_rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if "|" in line]
    found = 0
    for claim in committed():
        cells = next((cells for cells in text_rows if cells[0] == claim["arm"]), None)
        if cells is None:
            continue
        found += 1
        words = {claim["claim"], f"{claim['claim']}, as is 0"}
        assert words & {*cells}, f"{page}: {claim['arm']}: expected {words}"
        if claim["difference"]:
            interval = [points(float(claim[name])) for name in ("difference", "low", "high")]
            assert any("{} ({} to {})".format(*interval) in cell for cell in cells), f"{page}: {claim['arm']}"
    assert found >= least
