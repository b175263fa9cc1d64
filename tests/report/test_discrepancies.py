from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfake_cls.report import paper
from deepfake_cls.report.study import Study, declared
from deepfake_cls.report.tables.discrepancies import Finding, findings, one_cycle
from tests.report.fake_runs import CURVE, TINY, random_correct, study_of, write


@pytest.fixture
def empty_study() -> Study:
    return declared(TINY)


def texts(study: Study) -> list[str]:
    return [finding.finding for finding in findings(study)]


def test_findings_without_runs(empty_study: Study) -> None:
    recall, maps, alpha, best, schedule = findings(empty_study)
    assert recall == Finding(
        "Accuracy is 94.3 %, and errors by class are given as counts.",
        "The counts give 1,136 of 1,250 = 90.88 %, 3.4 points less than the stated accuracy.",
    )
    assert "12×12" in maps.claim
    assert "⌊(25 + 2 − 3)/2⌋ + 1 = 13. The network as built has 13×13 feature maps and 11,087,749" in maps.finding
    error = 100 * sqrt(0.943 * 0.057 / 1250)
    assert f"{error:.2f}" == "0.66"
    assert "94.3 % on 1,250 images is 0.66 points" in alpha.finding
    assert f"two independent runs is {sqrt(2) * error:.2f}." in alpha.finding
    assert "No run says whether" in alpha.finding
    assert "needs at least two runs" in alpha.finding
    assert best.finding == "This needs a run of the main arm."
    assert (
        "starts at 0.00016, 1/25 of its maximum of 0.004. It reaches the maximum in 1 of 400 steps" in schedule.finding
    )


def test_numbers_are_computed(empty_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "RECALL", ((1, 4), (2, 4)))
    monkeypatch.setattr(paper, "ACCURACY", 0.5)
    monkeypatch.setattr(paper, "MAPS", 99)
    config = empty_study.config
    config.lr, config.epochs, config.recipe.warmup = 1.0, 2, 0.2
    recall, maps, alpha, _, schedule = findings(empty_study)
    assert "give 3 of 8 = 37.50 %, 12.5 points less" in recall.finding
    assert recall.claim.startswith("Accuracy is 50.0 %")
    assert "99×99" in maps.claim
    assert "50.0 % on 8 images is 17.68 points" in alpha.finding
    assert "starts at 0.04, 1/25 of its maximum of 1. It reaches the maximum in 1 of 200 steps" in schedule.finding


def test_schedule_at_the_reference_scale() -> None:
    schedule = texts(declared(["scale=reference"]))[4]
    assert "1/25 of its maximum of 0.0003. It reaches the maximum in 1 of 10,000 steps" in schedule


def test_best_epoch_is_compared_with_the_last_of_the_curve(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, history=[0.5, 0.9, 0.88])
    assert "+2.0 points above the last one (mean over 1 seed, 4 epochs)" in texts(study_of(tmp_path))[3]
    write(tmp_path, TINY, 1, history=[0.5, 0.9, 0.9])
    assert "+1.0 points above the last one (mean over 2 seeds" in texts(study_of(tmp_path))[3]
    assert max(CURVE) == CURVE[-1]


def test_alpha_finding_depends_on_the_data_and_the_seeds(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0)
    one_run = texts(study_of(tmp_path))[2]
    assert "No image in this data has an alpha channel" in one_run
    assert "needs at least two runs of the main arm" in one_run
    write(tmp_path, TINY, 1)
    write(tmp_path, [*TINY, "arm=control_mask"], 0)
    study = study_of(tmp_path)
    sd = np.std([random_correct(0.8, seed).mean() for seed in (0, 1)], ddof=1)
    assert f"standard deviation over 2 seeds is {100 * sd:.2f} points" in texts(study)[2]
    study.experiments["table6_controls"].arms[1].runs[0].record.data["alpha"] = True
    assert "No image" in texts(study)[2]  # the alpha channel of a control is drawn
    study.main.runs[0].record.data["alpha"] = True
    assert "Some of these data sets have" in texts(study)[2]
    study.main.runs[1].record.data["alpha"] = True
    assert "The images in this data do have an alpha channel" in texts(study)[2]


@pytest.mark.parametrize(("steps", "warmup"), [(400, 0.1), (1000, 0.3), (70, 0.05)])
def test_one_cycle_equals_torch(steps: int, warmup: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.5, total_steps=steps, pct_start=warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert one_cycle(0.5, steps, warmup) == pytest.approx(rates[:steps], rel=1e-9)
