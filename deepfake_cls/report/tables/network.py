"""Table 2, the network as it is built, and table 3, the settings of the central arm."""

from __future__ import annotations

import json
from dataclasses import asdict
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
    name, args = config.model.name, json.dumps(config.model.args, sort_keys=True)
    layers, parameters = trace_network(name, args, len(config.channels), _classes(study), config.width, _size(study))
    told = {layer: f"{before} → {after}" for layer, before, after in paper.LAYERS} if name == "resnet" else {}
    rows = [[layer, before, after, f"{count:,}", told.get(layer, DASH)] for layer, before, after, count in layers]
    notes = [f"model.name={name} at width {config.width} has {parameters:,} parameters."]
    if name == "resnet":
        full, full_parameters = trace_network(name, "{}", 4, 5, 64, (100, 100))
        last = {layer: after for layer, _, after, _ in full}["stages.2.1"]
        notes.append(
            f"At the paper's width 64, with 4 channels, 5 classes and 100×100 pixels, it has {full_parameters:,}, and"
            f" its last stage gives {last} where the paper says {paper.LAYERS[6][2]}."
        )
    data = [{"experiment": "table2_network", "arm": layer, "parameters": count} for layer, _, _, count in layers]
    columns = ["layer", "in", "out", "parameters", "paper (width 64)"]
    return Table(2, "table2_network", "The network", columns, rows, notes, data)


@cache
def trace_network(
    name: str, args: str, channels: int, classes: int, width: int, size: tuple[int, int]
) -> tuple[list[tuple[str, str, str, int]], int]:
    """Layers of a built network with shapes in and out and parameters, and all its parameters.

    A layer is a child module of the network, or of a container in it.

    Args:
        name: Of the registered network.
        args: Its own arguments, as JSON.
        channels: 3 or 4.
        classes: Number of classes.
        width: Channels of the stem.
        size: Height and width of an image.
    """
    import torch
    from torch import nn

    from deepfake_cls.models import build

    with torch.device("meta"):  # draws no weights: only shapes matter here
        network = build(
            name, json.loads(args), in_channels=channels, num_classes=classes, width=width, dropout=0.0, seed=None
        ).eval()
    network.to_empty(device="cpu")
    found: list[tuple[str, str, str, int]] = []

    def watch(path: str, module: nn.Module) -> None:
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for inner, child in module.named_children():
                watch(f"{path}.{inner}", child)
            return
        count = sum(p.numel() for p in module.parameters())

        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
                before, after = ("×".join(map(str, tensor.shape[1:])) for tensor in (inputs[0], output))
                found.append((path, before, after, count))

        module.register_forward_hook(hook)

    for path, child in network.named_children():
        watch(path, child)
    with torch.inference_mode():
        network(torch.zeros((1, channels, *size), dtype=torch.uint8))
    return found, sum(p.numel() for p in network.parameters())


@table(3)
def settings_table(study: Study) -> Table:
    """Table 3: the resolved configuration of the central arm."""
    config = asdict(study.config)
    rows, data = [], []
    for key, told in paper.SETTINGS.items():
        value: Any = config
        for part in key.split("."):
            value = None if value is None else value.get(part)
        if key == "seed":
            ours = ", ".join(map(str, sorted(study.central.runs))) or DASH
        elif isinstance(value, bool):
            ours = "yes" if value else "no"
        else:
            ours = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        rows.append([key, ours, told])
        data.append({"experiment": "table3_settings", "arm": key, "value": ours, "told": told})
    notes = [f"At {study.scale_text}. The learning rate is the peak of the schedule, which starts at a 25th of it."]
    return Table(3, "table3_settings", "Settings", ["key", "ours", "paper"], rows, notes, data)


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
