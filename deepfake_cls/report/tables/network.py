"""Table 2, the network as built, and table 3, the settings of the main arm."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any

from deepfake_cls.report import paper, table
from deepfake_cls.report.render import DASH, Table
from deepfake_cls.report.study import Study

Layer = tuple[str, str, str, int]  # name, shape in, shape out, parameters


@table(2)
def network_table(study: Study) -> Table:
    """Table 2: layers with their shapes, measured on the network as built."""
    config = study.config
    name, args = config.model.name, json.dumps(config.model.args, sort_keys=True)
    classes, size = _classes_and_size(study)
    layers, parameters = trace_network(name, args, len(config.channels), classes, config.width, size)
    paper_shapes = {layer: f"{before} → {after}" for layer, before, after in paper.LAYERS} if name == "resnet" else {}
    rows = [
        [layer, before, after, f"{count:,}", paper_shapes.get(layer, DASH)] for layer, before, after, count in layers
    ]
    notes = [f"model.name={name} at width {config.width} has {parameters:,} parameters."]
    if name == "resnet":
        paper_layers, paper_parameters = trace_network(name, "{}", 4, 5, 64, (100, 100))
        last = {layer: after for layer, _, after, _ in paper_layers}["stages.2.1"]
        notes.append(
            f"At the paper's width 64, 4 channels, 5 classes and 100×100 pixels it has {paper_parameters:,} parameters."
            f" Its last stage returns {last}; the paper says {paper.LAYERS[6][2]}."
        )
    data = [{"arm": layer, "parameters": count} for layer, _, _, count in layers]
    columns = ["layer", "in", "out", "parameters", "paper (width 64)"]
    return Table(2, "table2_network", "Network", columns, rows, notes, data)


@cache
def trace_network(
    name: str, args: str, channels: int, classes: int, width: int, size: tuple[int, int]
) -> tuple[list[Layer], int]:
    """Build a network and trace its layers; the second value is the number of all parameters.

    A layer is a child module of the network, or of a container in it. ``args`` are ``model.args`` as JSON, which the
    cache can hash.
    """
    import torch
    from torch import nn

    from deepfake_cls.models import build

    with torch.device("meta"):  # only shapes matter, so no weights are drawn
        network = build(
            name, json.loads(args), in_channels=channels, num_classes=classes, width=width, dropout=0.0, seed=None
        ).eval()
    network.to_empty(device="cpu")
    layers: list[Layer] = []

    def add_hooks(path: str, module: nn.Module) -> None:
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for child_name, child in module.named_children():
                add_hooks(f"{path}.{child_name}", child)
            return
        count = sum(p.numel() for p in module.parameters())

        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
                before, after = ("×".join(map(str, tensor.shape[1:])) for tensor in (inputs[0], output))
                layers.append((path, before, after, count))

        module.register_forward_hook(hook)

    for child_name, child in network.named_children():
        add_hooks(child_name, child)
    with torch.inference_mode():
        network(torch.zeros((1, channels, *size), dtype=torch.uint8))
    return layers, sum(p.numel() for p in network.parameters())


@table(3)
def settings_table(study: Study) -> Table:
    """Table 3: the settings of the main arm."""
    config = asdict(study.config)
    rows, data = [], []
    for key, paper_value in paper.SETTINGS.items():
        value: Any = config
        for part in key.split("."):
            value = None if value is None else value.get(part)
        if key == "seed":
            ours = ", ".join(map(str, study.main.runs)) or DASH
        elif isinstance(value, bool):
            ours = "yes" if value else "no"
        else:
            ours = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        rows.append([key, ours, paper_value])
        data.append({"arm": key, "value": ours, "told": paper_value})
    notes = [f"Main arm at {study.scale_text}. lr is the peak of the schedule, which starts at 1/25 of it."]
    return Table(3, "table3_settings", "Settings", ["key", "ours", "paper"], rows, notes, data)


def _classes_and_size(study: Study) -> tuple[int, tuple[int, int]]:
    """Number of classes, and height and width of an image: from any run, else the paper's."""
    for arm in study.arms:
        for run in arm.runs.values():
            height, width = run.record.data["size"]
            return len(run.record.data["classes"]), (height, width)
    return len(paper.RECALL), (100, 100)
