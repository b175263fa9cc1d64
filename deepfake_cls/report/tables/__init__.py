"""The report's tables from evidence: each of our values beside the report's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.report import paper
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import Evidence, Row, gather, measure, over_seeds, paired
from deepfake_cls.report.study import Study
from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.intervals import Summary, summarise, wilson
from deepfake_cls.stats.verdict import judge, points
from deepfake_cls.summary import correct_of, minutes

DASH = "–"


@dataclass(frozen=True)
class Table:
    """A table as it is read, and the same as data.

    Attributes:
        number: As in the report; 10 is ours.
        name: Word for files and anchors.
        title: Heading.
        columns: Headings of the columns.
        rows: Cells as text; a dash stands for what was not run.
        notes: Sentences below the table.
        data: The same as numbers, a row for each line of the CSV.
    """

    number: int
    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, or a dash."""
    return DASH if value is None else f"{100 * value:.{digits}f}"


def mean_text(found: Summary | None) -> str:
    """``92.1 ± 0.4 (n = 3)``: mean and standard deviation over seeds, in per cent."""
    if found is None:
        return DASH
    spread = "" if found.sd is None else f" ± {100 * found.sd:.1f}"
    return f"{100 * found.mean:.1f}{spread} (n = {found.seeds})"


def interval_text(found: Difference) -> str:
    """``+0.4 (−1.2 to +2.0)``, in points."""
    return f"{points(found.estimate)} ({points(found.low)} to {points(found.high)})"


def all_tables(study: Study, evidence: Mapping[str, Evidence] | None = None) -> list[Table]:
    """Tables 1 to 10, in order.

    Args:
        study: Experiments with their runs.
        evidence: From :func:`gather_all`, where it is needed for more than tables.
    """
    evidence = gather_all(study) if evidence is None else evidence
    tables = [knn_table(study), network_table(study), settings_table(study)]
    synthetic = study.config.data.name == "synthetic"
    for name, found in evidence.items():
        if found.experiment.entry == "train" and (synthetic or not name.endswith("_controls")):
            tables += [arms_table(found, study), remarks_table(found)]
    tables += [methods_table(study), recall_table(study), tta_table(study)]
    return sorted(tables, key=lambda table: table.number)


def gather_all(study: Study) -> dict[str, Evidence]:
    """The evidence of each experiment, by name."""
    return {name: gather(experiment) for name, experiment in study.experiments.items()}


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def scale_words(study: Study) -> str:
    """``scale tiny: width 8, 4 epochs``."""
    config = study.config
    return f"scale {study.scale}: width {config.width}, {plural(config.epochs, 'epoch')}"


def arms_table(found: Evidence, study: Study) -> Table:
    """An experiment's arms: accuracy over seeds, difference from the baseline, verdict."""
    experiment = found.experiment
    columns = ["arm", "accuracy %", "report %", "difference, points (95 %)", "p (Holm)", "verdict"]
    rows = [_arm_cells(row, place == experiment.baseline) for place, row in enumerate(found.rows)]
    data = [_arm_data(row, experiment.name) for row in found.rows]
    notes = [
        f"Runs at {scale_words(study)}; accuracy after the last epoch: mean ± standard deviation over n seeds."
        " The interval of a difference accounts for seeds and for images; p is corrected over the arms (Holm)."
    ]
    notes += [f"{row.arm.label}: {_claim(row, study)}" for row in found.rows if row.comparison is not None]
    notes += [
        f"Failed: {row.arm.label}, seed {seed}: {' '.join(error.split())}"
        for row in found.rows
        for seed, error in row.arm.failed.items()
    ]
    notes += [f"Left out: {problem}" for problem in found.problems]
    return Table(experiment.table, experiment.name, experiment.title, columns, rows, notes, data)


def remarks_table(found: Evidence) -> Table:
    """What the report says in words of each arm, as numbers."""
    rows = []
    for row in found.rows:
        curve = row.curve
        cells = [row.arm.label, DASH if curve.epochs_to_95 is None else f"{curve.epochs_to_95:.1f}"]
        cells += [percent(curve.oscillation), mean_text(row.train), percent(row.arm.reported_train)]
        cells += [DASH if curve.gap is None else points(curve.gap), DASH if curve.ece is None else f"{curve.ece:.3f}"]
        rows.append([*cells, row.arm.remark or DASH])
    columns = ["arm", "slow: epochs to 95 %", "oscillates: points", "train %", "report, train %"]
    columns += ["overfits: train − validation, points", "overconfident: ECE", "report's remark"]
    notes = [
        "Epochs until validation accuracy first reaches 95 % of its last value; standard deviation of its change from"
        " epoch to epoch in the second half; accuracy on clean training images; expected calibration error."
        " Means over seeds."
    ]
    experiment = found.experiment
    return Table(
        experiment.table, f"{experiment.name}_remarks", f"{experiment.title}, in numbers", columns, rows, notes
    )


def _arm_cells(row: Row, baseline: bool) -> list[str]:
    comparison = row.comparison
    cells = [row.arm.label, mean_text(row.accuracy), percent(row.arm.reported)]
    if comparison is not None:
        cells += [interval_text(comparison.difference), f"{comparison.p_adjusted:.2g}", comparison.verdict.word]
    else:
        cells += ["baseline" if baseline else DASH, DASH, DASH]
    return cells


def _claim(row: Row, study: Study) -> str:
    """The verdict; only runs at the report's scale speak of the report's claim."""
    comparison = row.comparison
    assert comparison is not None
    found = comparison.difference
    return (
        f"{at_scale(study)}{comparison.verdict.sentence} ({plural(found.seeds, 'seed')},"
        f" {found.images:,} images each; {100 * found.shares.seed:.0f} % of the squared standard error is between"
        f" seeds, {100 * found.shares.image:.0f} % between images; a true difference of {100 * found.detectable:.1f}"
        f" points would be found in 4 of 5 such experiments; P(arm > baseline) = {comparison.probability:.2f})"
    )


def at_scale(study: Study) -> str:
    """What stands before a verdict: only runs at the report's own scale speak of the report's claim."""
    return "" if study.scale == "reference" else f"at scale {study.scale}: "


def _arm_data(row: Row, experiment: str) -> dict[str, Any]:
    data: dict[str, Any] = {"experiment": experiment, "arm": row.arm.label, "words": " ".join(row.arm.words)}
    data |= {"runs": " ".join(row.arm.runs[seed].record.identity[:12] for seed in sorted(row.arm.runs))}
    data |= {"seeds": len(row.arm.runs), "failed": len(row.arm.failed), "reported": row.arm.reported}
    for name, summary in (("accuracy", row.accuracy), ("train", row.train)):
        if summary is not None:
            data |= {name: summary.mean, f"{name}_sd": summary.sd, f"{name}_low": summary.low}
            data |= {f"{name}_high": summary.high}
    curve = row.curve
    data |= {"epochs_to_95": curve.epochs_to_95, "oscillation": curve.oscillation, "gap": curve.gap, "ece": curve.ece}
    if row.comparison is not None:
        found = row.comparison.difference
        data |= {"pairs": found.seeds, "difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
        data |= {"p_holm": row.comparison.p_adjusted, "verdict": row.comparison.verdict.word}
        data |= {"df": found.df, "share_seed": found.shares.seed, "share_image": found.shares.image}
        data |= {"detectable": found.detectable, "probability_better": row.comparison.probability}
        if row.comparison.bootstrap is not None:
            data |= dict(zip(("bootstrap_low", "bootstrap_high"), row.comparison.bootstrap, strict=True))
        data["mcnemar_p"] = " ".join(f"{test.p:.3g}" for test in row.comparison.mcnemar)
    return data


def knn_table(study: Study) -> Table:
    """Table 1: nearest neighbours by k, and after a shift of two pixels."""
    experiment = study.experiments["table1_knn"]
    plain, moved = (next(iter(arm.runs.values()), None) for arm in experiment.arms)
    rows, data = [], []
    ks = sorted({*experiment.by_k, *(int(k) for entry in (plain, moved) if entry for k in entry.record.by_k)})
    for k in ks:
        cells, line = [str(k)], {"experiment": experiment.name, "arm": f"k = {k}", "reported": experiment.by_k.get(k)}
        for name, entry in (("accuracy", plain), ("moved", moved)):
            accuracy = None if entry is None else entry.record.by_k.get(str(k), {}).get("val_acc")
            cells.append(_with_wilson(accuracy, entry))
            line[name] = accuracy
        rows.append([*cells, percent(experiment.by_k.get(k))])
        data.append(line)
    notes = ["Exact neighbours on raw RGB pixels; 95 % Wilson intervals over images. Nothing here depends on a seed."]
    if plain is not None and "contrast" in plain.record.metrics:
        notes.append(
            f"Distances concentrate: in the median the images lie {plain.record.metrics['contrast']:.2f} times as"
            " far as the nearest one (1 would be no contrast at all)."
        )
    columns = ["k", "accuracy %", "moved by 2 pixels %", "report %"]
    return Table(1, "table1_knn", "Nearest neighbours", columns, rows, notes, data)


def _with_wilson(accuracy: float | None, entry: Finished | None) -> str:
    if accuracy is None or entry is None:
        return DASH
    count = correct_of(entry.record)[1]
    low, high = wilson(round(accuracy * count), count)
    return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def network_table(study: Study) -> Table:
    """Table 2: layers, measured by sending an image through the network as it is built."""
    config = study.config
    classes = _classes(study)
    layers, parameters = trace_network(len(config.channels), classes, config.width, _size(study))
    rows = [
        [name, shape_in, shape_out, f"{count:,}", f"{told[1]} → {told[2]}"]
        for (name, shape_in, shape_out, count), told in zip(layers, paper.LAYERS, strict=True)
    ]
    full, full_parameters = trace_network(4, 5, 64, (100, 100))
    notes = [
        f"At width {config.width} the network has {parameters:,} parameters. At the report's width 64, with 4 channels,"
        f" 5 classes and 100×100 pixels, {full_parameters:,}, and its last stage gives {full[6][2]} where the report"
        f" says {paper.LAYERS[6][2]}."
    ]
    data = [{"experiment": "table2_network", "arm": name, "parameters": count} for name, _, _, count in layers]
    columns = ["layer", "in", "out", "parameters", "report (width 64)"]
    return Table(2, "table2_network", "The network", columns, rows, notes, data)


@cache
def trace_network(
    channels: int, classes: int, width: int, size: tuple[int, int]
) -> tuple[list[tuple[str, str, str, int]], int]:
    """Layers of a built network with shapes in and out and parameters, and all its parameters.

    Args:
        channels: 3 or 4.
        classes: Number of classes.
        width: Channels of the stem.
        size: Height and width of an image.
    """
    import torch
    from torch import nn

    from deepfake_cls.models.resnet import ResidualNet

    with torch.device("meta"):  # no weights are drawn: shapes alone are asked for
        network = ResidualNet(channels, classes, width).eval()
    network.to_empty(device="cpu")
    found: list[tuple[str, str, str, int]] = []

    def watch(name: str, *modules: nn.Module) -> None:
        count = sum(p.numel() for module in modules for p in module.parameters())

        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            shapes = ("×".join(map(str, tensor.shape[1:])) for tensor in (inputs[0], output))
            found.append((name, *shapes, count))  # type: ignore[arg-type]

        modules[0].register_forward_hook(hook)

    watch("stem conv, BN, ReLU", network.conv, network.bn)
    for number, stage in enumerate(network.stages, 1):
        assert isinstance(stage, nn.Sequential)
        for place, block in enumerate(stage, 1):
            watch(f"stage {number} block {place}", block)
    watch("FC1, ReLU, dropout", network.fc1)
    watch("FC2", network.fc2)
    with torch.inference_mode():
        network(torch.zeros((1, channels, *size), dtype=torch.uint8))
    pooled = ("global average pool, flatten", found[6][2], found[7][1], 0)
    return [*found[:7], pooled, *found[7:]], sum(p.numel() for p in network.parameters())


def settings_table(study: Study) -> Table:
    """Table 3: the resolved configuration of the central arm."""
    config = study.config
    rows, data = [], []
    for key, told in paper.SETTINGS.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        ours = (
            ("no", "yes")[value]
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
        if key == "seed":
            ours = ", ".join(map(str, sorted(study.central.runs))) or DASH
        rows.append([key, ours, told])
        data.append({"experiment": "table3_settings", "arm": key, "value": ours, "told": told})
    notes = [f"At {scale_words(study)}. The learning rate is the peak of the schedule, which starts at a 25th of it."]
    return Table(3, "table3_settings", "Settings", ["key", "ours", "report"], rows, notes, data)


def methods_table(study: Study) -> Table:
    """Table 7: neighbours beside the network, with training time."""
    knn = next(iter(study.experiments["table1_knn"].arms[0].runs.values()), None)
    rows, data = [], []
    accuracy = None if knn is None else knn.record.metrics["val_acc"]
    seconds = None if knn is None else knn.record.seconds["fit"]
    name = "nearest neighbours, k = 5"
    rows.append([name, _with_wilson(accuracy, knn), percent(paper.KNN_ACCURACY), _time(seconds)])
    rows[-1] += [paper.TRAINING["knn"], _hardware(knn)]
    data.append({"experiment": "table7_methods", "arm": name, "accuracy": accuracy})
    runs = list(study.central.runs.values())
    found = over_seeds(study.central, "val_acc")
    times = [entry.record.seconds["fit"] for entry in runs]
    rows.append(["residual CNN", mean_text(found), percent(paper.ACCURACY)])
    rows[-1] += [_time(sum(times) / len(times) if times else None), paper.TRAINING["cnn"]]
    rows[-1].append(_hardware(runs[0] if runs else None))
    data.append(
        {"experiment": "table7_methods", "arm": "residual CNN", "accuracy": None if found is None else found.mean}
    )
    notes = [f"The network at {scale_words(study)}; the report's at width 64 and 100 epochs, hardware not named."]
    columns = ["method", "accuracy %", "report %", "time to fit", "report, time", "hardware"]
    return Table(7, "table7_methods", "Neighbours and network", columns, rows, notes, data)


def _time(seconds: float | None) -> str:
    return DASH if seconds is None else minutes(seconds)


def _hardware(entry: Finished | None) -> str:
    if entry is None:
        return DASH
    record = entry.record
    return f"{record.device}, {record.precision}, {record.threads} thread{'s' * (record.threads != 1)}"


def recall_table(study: Study) -> Table:
    """Table 8: recall by class of the central arm."""
    runs = [study.central.runs[seed].record for seed in sorted(study.central.runs)]
    rows, data = [], []
    same = study.config.data.name == "unibuc"  # only there do the classes mean what the report's mean
    names = runs[0].data["classes"] if runs else [str(label) for label in range(len(paper.RECALL))]
    for label, name in enumerate(names):
        values = [value for record in runs if (value := record.recall[label]) is not None]
        told = paper.RECALL[label] if same and label < len(paper.RECALL) else None
        found = summarise(values) if values else None
        taken = _taken_for(runs, label, names)
        rows.append([name, mean_text(found), DASH if told is None else f"{100 * told[0] / told[1]:.1f}", taken])
        data.append({"experiment": "table8_recall", "arm": name, "accuracy": None if found is None else found.mean})
    notes = [f"The central arm at {scale_words(study)}: mean ± standard deviation over n seeds."]
    if not same:
        notes.append("The report's classes are the competition's generators: no figure of its own stands beside these.")
    columns = ["class", "recall %", "report %", "most often taken for"]
    return Table(8, "table8_recall", "Recall by class", columns, rows, notes, data)


def _taken_for(records: list[Any], label: int, names: list[str]) -> str:
    if not records:
        return DASH
    wrong = [sum(r.confusion[label][other] for r in records) if other != label else 0 for other in range(len(names))]
    most = max(range(len(names)), key=lambda other: wrong[other])
    return f"{names[most]} ({wrong[most]} of {sum(wrong)} errors)" if wrong[most] else DASH


def compare_tta(study: Study) -> Difference | None:
    """Flip TTA less plain, on the central arm's runs; None where none was scored with it.

    Raises:
        InputError: Predictions are missing.
    """
    central = study.central
    seeds = tuple(s for s in sorted(central.runs) if "val_acc_flip" in central.runs[s].record.metrics)
    return measure(*paired(central, central, seeds, "probs_flip", "probs")) if seeds else None


def tta_table(study: Study) -> Table:
    """Table 9: flip TTA on the central arm's runs."""
    central = study.central
    notes = ["Mean of the softmax over each image and its mirror image, on the same weights."]
    try:
        found = compare_tta(study)
    except InputError as error:
        found = None
        notes.append(f"Left out: {error}")
    plain, flipped = over_seeds(central, "val_acc"), over_seeds(central, "val_acc_flip")
    low, high = (points(value) for value in paper.TTA_GAIN)
    cells = [mean_text(plain), mean_text(flipped), DASH, DASH, f"{low} to {high}"]
    data: dict[str, Any] = {"experiment": "table9_tta", "arm": "flip"}
    data["accuracy"] = None if flipped is None else flipped.mean
    if found is not None:
        verdict = judge(found)
        cells[2:4] = [interval_text(found), verdict.word]
        data |= {"difference": found.estimate, "low": found.low, "high": found.high, "verdict": verdict.word}
        size = f"{plural(found.seeds, 'seed')}, {found.images:,} images each"
        notes.append(f"flip TTA: {at_scale(study)}{verdict.sentence} ({size}).")
    columns = ["plain %", "flip TTA %", "gain, points (95 %)", "verdict", "report's gain, points"]
    return Table(9, "table9_tta", "Test-time augmentation", columns, [cells], notes, [data])


def _any_run(study: Study) -> Finished | None:
    arms = [study.central, *(arm for e in study.experiments.values() for arm in e.arms)]
    return next((entry for arm in arms for entry in arm.runs.values()), None)


def _classes(study: Study) -> int:
    entry = _any_run(study)
    return len(entry.record.data["classes"]) if entry else len(paper.RECALL)


def _size(study: Study) -> tuple[int, int]:
    entry = _any_run(study)
    height, width = entry.record.data["size"] if entry else (100, 100)
    return height, width
