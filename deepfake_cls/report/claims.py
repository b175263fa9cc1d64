"""Claims of the paper that do not add up: each point computed from its own figures, the built network, or our runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sqrt

from deepfake_cls.report import paper
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.report.render import plural
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.network import trace_network
from deepfake_cls.stats.intervals import summarise
from deepfake_cls.stats.verdict import points


@dataclass(frozen=True)
class Finding:
    """One point.

    Attributes:
        claim: What the paper says.
        finding: What the numbers say; where runs are missing, which.
    """

    claim: str
    finding: str


def findings(study: Study) -> list[Finding]:
    """All points, in the order of the paper.

    Args:
        study: Experiments with their runs.
    """
    return [_recall(), _maps(), _alpha(study), _best_epoch(study), _schedule(study)]


def _recall() -> Finding:
    right, count = (sum(column) for column in zip(*paper.RECALL, strict=True))
    return Finding(
        f"Accuracy {100 * paper.ACCURACY:.1f} %, with recall by class in counts.",
        f"The counts sum to {right:,} of {count:,} = {100 * right / count:.2f} %,"
        f" {100 * (paper.ACCURACY - right / count):.1f} points below the accuracy they should explain.",
    )


def _maps() -> Finding:
    layers, parameters = trace_network("resnet", "{}", 4, 5, 64, (100, 100))
    side = int({name: after for name, _, after, _ in layers}["stages.2.1"].split("×")[1])
    return Finding(
        f"The last stage has maps of {paper.MAPS}×{paper.MAPS}.",
        f"A 3×3 convolution of stride 2 and padding 1 takes 25 to ⌊(25 + 2 − 3)/2⌋ + 1 = {(25 + 2 - 3) // 2 + 1}; the"
        f" network as built has {side}×{side} maps and {parameters:,} parameters.",
    )


def _alpha(study: Study) -> Finding:
    claim = 'RGBA is 2.2 points better than RGB, because alpha "contains visual cues".'
    arms = [study.central, *(arm for e in study.experiments.values() for arm in e.arms)]
    entries = [entry for arm in arms for entry in arm.runs.values()]
    natural = [e for e in entries if e.record.config["data"].get("alpha", "none") == "none"]  # not drawn as a control
    alpha = {entry.record.data["alpha"] for entry in natural if "alpha" in entry.record.data}
    told = {
        frozenset(): "no run here says whether the images have an alpha channel",
        frozenset({False}): "none of the images has an alpha channel: RGBA adds a constant plane, in which only rotated"
        " corners can leave a mark",
        frozenset({True}): "these images do have an alpha channel",
    }.get(frozenset(alpha), "some of the data sets here have an alpha channel, others have not")
    p, n = paper.ACCURACY, sum(count for _, count in paper.RECALL)
    error = sqrt(p * (1 - p) / n)
    spread = over_seeds(study.central, "val_acc")
    seeds = (
        f"the central arm's standard deviation over {plural(spread.seeds, 'seed')} is {100 * spread.sd:.2f} points"
        if spread is not None and spread.sd is not None
        else "how much seeds differ needs two runs of the central arm or more"
    )
    return Finding(
        claim,
        f"In the data, {told}. One standard error of {100 * p:.1f} % on {n:,} images is {100 * error:.2f} points, that"
        f" of a difference of two unrelated runs {100 * sqrt(2) * error:.2f}; {seeds}. Table 6 has the comparison.",
    )


def _best_epoch(study: Study) -> Finding:
    # The curve's own last value, since the curve may be taken on fewer images than the result.
    gains = [
        entry.record.metrics["val_acc_best"] - entry.record.history[-1]["val_acc"]
        for entry in study.central.runs.values()
        if entry.record.history
    ]
    if not gains:
        said = "No run of the central arm is here to measure it on."
    else:
        found = summarise(gains)
        said = (
            f"Here the best epoch lies {points(found.mean)} points above the last one (mean over"
            f" {plural(len(gains), 'seed')}, {plural(study.config.epochs, 'epoch')}): our tables report the"
            " last epoch."
        )
    return Finding("The accuracy is that of the best epoch, chosen on the split it is reported on.", said)


def _schedule(study: Study) -> Finding:
    config = study.config
    steps = 100 * config.epochs
    rates = one_cycle(config.lr, steps, config.recipe.warmup)
    peak = max(rates)
    return Finding(
        "OneCycleLR with a maximum equal to the initial learning rate.",
        f"The schedule starts at {rates[0]:.3g}, a {peak / rates[0]:.0f}th of its maximum of {peak:.3g}, reaches it in"
        f" {rates.count(peak)} of {steps:,} steps, and ends at {rates[-1]:.2g}.",
    )


def one_cycle(peak: float, steps: int, warmup: float) -> list[float]:
    """The learning rate of each step under torch's ``OneCycleLR`` with its defaults (cosine; Smith and Topin 2019).

    The formula again, since an optimiser of torch's, which ``OneCycleLR`` wants, takes seconds to import.

    Args:
        peak: The largest rate.
        steps: Optimiser steps in all.
        warmup: Share of the steps in which the rate rises.
    """
    start, top = peak / 25, max(warmup * steps - 1, 1e-9)
    rates = []
    for step in range(steps):
        low, share = (start, 1 - step / top) if step <= top else (start / 1e4, (step - top) / (steps - 1 - top))
        rates.append(low + (peak - low) * (1 + cos(pi * share)) / 2)
    return rates
