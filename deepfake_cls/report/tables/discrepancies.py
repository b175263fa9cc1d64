"""Claims of the paper that disagree with its own numbers, the network as built, or our runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sqrt

from deepfake_cls.notation import plural
from deepfake_cls.report import paper
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.network import trace_network
from deepfake_cls.stats.intervals import summarise
from deepfake_cls.stats.verdict import points

NO_ALPHA = (
    "No image in this data has an alpha channel: RGBA adds a constant one. Only the corners of rotated images can"
    " differ in it."
)
ALPHA_TEXT = {
    (): "No run says whether the images have an alpha channel.",
    (False,): NO_ALPHA,
    (True,): "The images in this data do have an alpha channel.",
    (False, True): "Some of these data sets have an alpha channel, others do not.",
}


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, and the numbers that it disagrees with.

    Attributes:
        claim: The paper's statement.
        finding: What the numbers show, or which runs are missing.
    """

    claim: str
    finding: str


def findings(study: Study) -> list[Finding]:
    """Check all claims, in the order of the paper."""
    return [_recall(), _maps(), _alpha(study), _best_epoch(study), _schedule(study)]


def _recall() -> Finding:
    correct, count = (sum(column) for column in zip(*paper.RECALL, strict=True))
    return Finding(
        f"Accuracy is {100 * paper.ACCURACY:.1f} %, and errors by class are given as counts.",
        f"The counts give {correct:,} of {count:,} = {100 * correct / count:.2f} %,"
        f" {100 * (paper.ACCURACY - correct / count):.1f} points less than the stated accuracy.",
    )


def _maps() -> Finding:
    layers, parameters = trace_network("resnet", "{}", 4, 5, 64, (100, 100))
    side = int({name: after for name, _, after, _ in layers}["stages.2.1"].split("×")[1])
    return Finding(
        f"The last stage has feature maps of {paper.MAPS}×{paper.MAPS}.",
        f"A 3×3 convolution with stride 2 and padding 1 reduces 25 to ⌊(25 + 2 − 3)/2⌋ + 1 = {(25 + 2 - 3) // 2 + 1}."
        f" The network as built has {side}×{side} feature maps and {parameters:,} parameters.",
    )


def _alpha(study: Study) -> Finding:
    records = [run.record for arm in study.arms for run in arm.runs.values()]
    natural = [
        r for r in records if r.config["data"].get("alpha", "none") == "none"
    ]  # the alpha channel of controls is drawn
    alpha = tuple(sorted({bool(record.data["alpha"]) for record in natural if "alpha" in record.data}))
    p, n = paper.ACCURACY, sum(count for _, count in paper.RECALL)
    error = sqrt(p * (1 - p) / n)
    accuracy = over_seeds(study.main, "val_acc")
    between_seeds = (
        f"The main arm's standard deviation over {plural(accuracy.seeds, 'seed')} is {100 * accuracy.sd:.2f} points."
        if accuracy is not None and accuracy.sd is not None
        else "The variation between seeds needs at least two runs of the main arm."
    )
    return Finding(
        'RGBA is 2.2 points better than RGB, because alpha "contains visual cues".',
        f"{ALPHA_TEXT[alpha]} The standard error of {100 * p:.1f} % on {n:,} images is {100 * error:.2f} points; the"
        f" standard error of the difference of two independent runs is {100 * sqrt(2) * error:.2f}. {between_seeds}"
        " Table 6 compares RGB and RGBA.",
    )


def _best_epoch(study: Study) -> Finding:
    # Both values come from the curve, which may use fewer images than the result.
    gains = [
        run.record.metrics["val_acc_best"] - run.record.history[-1]["val_acc"]
        for run in study.main.runs.values()
        if run.record.history
    ]
    return Finding(
        "The accuracy is that of the best epoch, which is selected on the images it is reported on.",
        f"In our runs, the best epoch is {points(summarise(gains).mean)} points above the last one (mean over"
        f" {plural(len(gains), 'seed')}, {plural(study.config.epochs, 'epoch')}). Our tables report the last epoch."
        if gains
        else "This needs a run of the main arm.",
    )


def _schedule(study: Study) -> Finding:
    config = study.config
    steps = 100 * config.epochs
    rates = one_cycle(config.lr, steps, config.recipe.warmup)
    peak = max(rates)
    return Finding(
        "OneCycleLR has a maximum equal to the initial learning rate.",
        f"The schedule starts at {rates[0]:.3g}, 1/{peak / rates[0]:.0f} of its maximum of {peak:.3g}. It reaches the"
        f" maximum in {rates.count(peak)} of {steps:,} steps, and ends at {rates[-1]:.2g}.",
    )


def one_cycle(peak: float, steps: int, warmup: float) -> list[float]:
    """The learning rate of each step under torch's ``OneCycleLR`` with its defaults (cosine; Smith and Topin 2019).

    The formula is repeated here since ``OneCycleLR`` needs an optimiser, and torch's take seconds to import. ``warmup``
    is the share of the steps in which the rate rises.
    """
    start, top = peak / 25, max(warmup * steps - 1, 1e-9)
    rates = []
    for step in range(steps):
        low, share = (start, 1 - step / top) if step <= top else (start / 1e4, (step - top) / (steps - 1 - top))
        rates.append(low + (peak - low) * (1 + cos(pi * share)) / 2)
    return rates
