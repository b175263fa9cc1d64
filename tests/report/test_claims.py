from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfake_cls.report import paper
from deepfake_cls.report.claims import Finding, findings, one_cycle
from deepfake_cls.report.study import Study, fill
from tests.report.lab import CURVE, TINY, some_right, study_of, write


@pytest.fixture
def nothing() -> Study:
    return fill(TINY, [])


def said(found: Study) -> list[str]:
    return [point.finding for point in findings(found)]


def test_five_points_without_a_run(nothing: Study) -> None:
    recall, maps, alpha, best, schedule = findings(nothing)
    assert recall == Finding(
        "Accuracy 94.3 %, with recall by class in counts.",
        "The counts sum to 1,136 of 1,250 = 90.88 %, 3.4 points below the accuracy they should explain.",
    )
    assert "12×12" in maps.claim
    assert "⌊(25 + 2 − 3)/2⌋ + 1 = 13; the network as built has 13×13 maps and 11,087,749 parameters" in maps.finding
    error = 100 * sqrt(0.943 * 0.057 / 1250)
    assert f"{error:.2f}" == "0.66"
    assert "94.3 % on 1,250 images is 0.66 points" in alpha.finding
    assert f"two unrelated runs {sqrt(2) * error:.2f};" in alpha.finding
    assert "no run here says whether" in alpha.finding
    assert "needs two runs" in alpha.finding
    assert best.finding == "No run of the central arm is here to measure it on."
    assert "starts at 0.00016, a 25th of its maximum of 0.004, reaches it in 1 of 400 steps" in schedule.finding


def test_the_figures_are_computed(nothing: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "RECALL", ((1, 4), (2, 4)))
    monkeypatch.setattr(paper, "ACCURACY", 0.5)
    monkeypatch.setattr(paper, "MAPS", 99)
    nothing.config.lr, nothing.config.epochs, nothing.config.recipe.warmup = 1.0, 2, 0.2
    recall, maps, alpha, _, schedule = findings(nothing)
    assert "sum to 3 of 8 = 37.50 %, 12.5 points below" in recall.finding
    assert recall.claim.startswith("Accuracy 50.0 %")
    assert "99×99" in maps.claim
    assert "50.0 % on 8 images is 17.68 points" in alpha.finding
    assert "starts at 0.04, a 25th of its maximum of 1, reaches it in 1 of 200 steps" in schedule.finding


def test_at_the_reference_the_schedule_reaches_its_maximum_once() -> None:
    assert "a 25th of its maximum of 0.0003, reaches it in 1 of 10,000 steps" in said(fill(["scale=reference"], []))[4]


def test_best_less_last_epoch_comes_from_the_curves(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0, history=[0.5, 0.9, 0.88])
    assert "+2.0 points above the last one (mean over 1 seed, 4 epochs)" in said(study_of(tmp_path))[3]
    write(tmp_path, TINY, 1, history=[0.5, 0.9, 0.9])
    assert "+1.0 points above the last one (mean over 2 seeds" in said(study_of(tmp_path))[3]
    assert max(CURVE) == CURVE[-1]


def test_alpha_is_told_from_the_data(tmp_path: Path) -> None:
    write(tmp_path, TINY, 0)
    alone = said(study_of(tmp_path))[2]
    assert "none of the images has an alpha channel" in alone
    assert "needs two runs of the central arm" in alone
    write(tmp_path, TINY, 1)
    write(tmp_path, [*TINY, "arm=control_mask"], 0)
    found = study_of(tmp_path)
    spread = np.std([some_right(0.8, seed).mean() for seed in (0, 1)], ddof=1)
    assert f"standard deviation over 2 seeds is {100 * spread:.2f} points" in said(found)[2]
    found.experiments["table6_controls"].arms[1].runs[0].record.data["alpha"] = True
    assert "none of the images" in said(found)[2]  # a plane that was drawn as a control says nothing of the images
    found.central.runs[0].record.data["alpha"] = True
    assert "some of the data sets here have" in said(found)[2]
    found.central.runs[1].record.data["alpha"] = True
    assert "these images do have an alpha channel" in said(found)[2]


@pytest.mark.parametrize(("steps", "warmup"), [(400, 0.1), (1000, 0.3), (70, 0.05)])
def test_the_schedule_is_torchs(steps: int, warmup: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.5, total_steps=steps, pct_start=warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert one_cycle(0.5, steps, warmup) == pytest.approx(rates[:steps], rel=1e-9)
