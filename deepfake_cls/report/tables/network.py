"""Table 2, the network as it is built, and table 3, the settings of the central arm."""

from __future__ import annotations

from functools import cache
from typing import Any

from deepfake_cls.report import paper, table
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.render import DASH, Table
from deepfake_cls.report.study import Study


@table(2)
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

    with torch.device("meta"):  # draws no weights: only shapes matter here
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


@table(3)
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
    notes = [f"At {study.scale_text}. The learning rate is the peak of the schedule, which starts at a 25th of it."]
    return Table(3, "table3_settings", "Settings", ["key", "ours", "report"], rows, notes, data)


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
