"""One HTML file with everything inside: it can be sent by mail and opened without a network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepfake_cls.data import source
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.figures import accuracy_figure, by_class, classes_figure, confusion_figure, learning_figure
from deepfake_cls.records import Record, write_atomically
from deepfake_cls.report.collect import Finished
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import accuracy_text, argument, correct_of, minutes

NAMES = {"cnn": "Residual CNN", "knn": "k nearest neighbours", "evaluate": "Evaluation"}
SAMPLES = 200  # images of a class behind its mean spectrum

STYLE = """
:root{--ink:#1b1f24;--soft:#5b6570;--line:#e3e7eb;--accent:#0072B2}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);max-width:62rem;
margin:2.5rem auto;padding:0 1.25rem;background:#fff}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem}h2{font-size:1.25rem;margin:2.6rem 0 .4rem}
.lead{color:var(--soft);margin:.2rem 0 1.6rem}
.cards{display:flex;gap:1rem;flex-wrap:wrap}.card{flex:1 1 16rem;border:1px solid var(--line);border-radius:10px;
padding:1rem 1.2rem}.card b{display:block;font-size:2.1rem;line-height:1.2;color:var(--accent)}
.card small,figcaption,td small{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:.94rem;margin:.6rem 0}
th,td{text-align:left;padding:.38rem .7rem .38rem 0;border-bottom:1px solid var(--line);
font-variant-numeric:tabular-nums}th{font-weight:600}
figure{margin:.6rem 0 0}figure img{max-width:100%;height:auto}.pair{display:flex;gap:1.2rem;flex-wrap:wrap}
.pair figure{flex:1 1 24rem}code{background:#f4f6f8;border-radius:4px;padding:.1rem .35rem;font-size:.9em}
.wide{overflow-x:auto}.notes{color:var(--soft);font-size:.9rem;padding-left:1.2rem}ol li{margin:.7rem 0}
h1:not(:first-of-type){margin-top:3.2rem}
pre{background:#f4f6f8;border-radius:8px;padding:.8rem 1rem;overflow-x:auto;font-size:.88rem}
"""


def write_page(
    path: Path, records: Sequence[Finished], chosen: Mapping[str, Finished], sections: Sequence[str] = ()
) -> Path:
    """Write the page.

    Args:
        path: The HTML file.
        records: All runs, for the table at the end.
        chosen: The run of each kind that figures are drawn from; all over the same data.
        sections: More of the page, as HTML; it stands before the list of all runs.

    Returns:
        The path.
    """
    shown = {kind: chosen[kind].record for kind in ("cnn", "knn") if kind in chosen} or {
        kind: entry.record for kind, entry in chosen.items()
    }
    data = next(iter(shown.values())).data
    sizes = ", ".join(f"{count:,} {name}" for name, count in data["sizes"].items())
    body = [
        "<h1>Which generator made this image?</h1>",
        f'<p class="lead">{len(data["classes"])} classes, {sizes} images ({html.escape(data["name"])} data,'
        f" fingerprint {data['fingerprint'][:12]}). Guessing is right in {100 / len(data['classes']):.0f} %.</p>",
        '<div class="cards">',
        *(_card(kind, record) for kind, record in shown.items()),
        "</div>",
        "<h2>Accuracy</h2>",
        image(_accuracies(shown), "Validation accuracy with 95 % Wilson intervals over the images of one run."),
        "<h2>What is taken for what</h2>",
        '<div class="pair">',
        *(_confusion(kind, record) for kind, record in shown.items()),
        "</div>",
        "<h2>Recall by class</h2>",
        _recalls(shown),
    ]
    if "cnn" in shown and shown["cnn"].history:
        history = {"CNN": shown["cnn"].history}
        note = "Training loss is taken on augmented, mixed images with smoothed labels, so it lies above the other."
        body += ["<h2>Learning curves</h2>", image(learning_figure(history), note)]
    samples = _samples(next(iter(shown.values())))
    if samples is not None:
        note = (
            "Three examples of each class; the first one's residual (image minus its Gaussian blur, σ 1, six-fold);"
            " and how the class's mean log power spectrum of residuals differs from the mean of all classes"
            " (red: more power; zero frequency in the middle)."
        )
        body += ["<h2>The classes and their traces</h2>", image(classes_figure(samples), note)]
    body += sections
    body += ["<h2>All runs</h2>", _runs(records), "<h2>Next</h2>", _next(chosen)]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>deepfake_cls</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    write_atomically(path, page.encode())
    return path


def _card(kind: str, record: Record) -> str:
    correct, count = correct_of(record)
    low, high = wilson(correct, count)
    detail = f"k = {_chosen_k(record)}" if kind == "knn" else f"{minutes(record.seconds.get('fit', 0.0))} of training"
    return (
        f'<div class="card">{NAMES[kind]}<b>{100 * correct / count:.1f} %</b>'
        f"<small>{100 * low:.1f} to {100 * high:.1f} % (95 %); {correct:,} of {count:,} images; {detail};"
        f" {html.escape(record.device)}, {record.threads} threads, {html.escape(record.precision)}</small></div>"
    )


def _chosen_k(record: Record) -> int:
    ks = [int(k) for k in record.config["k"]]
    return 5 if 5 in ks else ks[0]


def _accuracies(shown: Mapping[str, Record]) -> Figure:
    rows: list[tuple[str, float, float, float]] = []
    for kind, record in shown.items():
        if kind == "knn":
            count = correct_of(record)[1]
            for k, metrics in record.by_k.items():
                correct = round(metrics["val_acc"] * count)
                rows.append((f"KNN, k = {k}", correct / count, *wilson(correct, count)))
        else:
            correct, count = correct_of(record)
            rows.append((NAMES[kind], correct / count, *wilson(correct, count)))
    return accuracy_figure(rows, 1 / len(next(iter(shown.values())).data["classes"]))


def _confusion(kind: str, record: Record) -> str:
    figure = confusion_figure(np.array(record.confusion), record.data["classes"], NAMES[kind])
    return image(figure, "")


def _recalls(shown: Mapping[str, Record]) -> str:
    head = "".join(f"<th>{NAMES[kind]}</th>" for kind in shown)
    rows = []
    for label, name in enumerate(next(iter(shown.values())).data["classes"]):
        cells = []
        for record in shown.values():
            row = record.confusion[label]
            share = f"{100 * row[label] / sum(row):.1f} %" if sum(row) else "–"
            cells.append(f"<td>{share} <small>{row[label]} of {sum(row)}</small></td>")
        rows.append(f"<tr><td>{label}: {html.escape(name)}</td>{''.join(cells)}</tr>")
    return f"<table><tr><th>class</th>{head}</tr>{''.join(rows)}</table>"


def _runs(records: Sequence[Finished]) -> str:
    rows = []
    for entry in records:
        record = entry.record
        result = accuracy_text(record) if record.status == "ok" else f"– ({html.escape(str(record.error))})"
        config = record.config
        keys = ("channels", "width", "epochs", "lr", "dropout", "features", "tta")
        settings = ", ".join(f"{key}={config[key]}" for key in keys if key in config)
        total = minutes(record.seconds["total"]) if "total" in record.seconds else "–"
        kind = NAMES.get(record.kind, html.escape(record.kind))
        about = f"seed {record.seed}, {html.escape(str(record.data.get('name', '–')))} data"
        rows.append(
            f"<tr><td>{kind}<br><small>{record.identity[:12]}</small></td>"
            f"<td>{html.escape(settings)}<br><small>{about}</small></td><td>{result}</td><td>{total}</td></tr>"
        )
    head = "<tr><th>run</th><th>settings</th><th>accuracy, 95 % interval</th><th>time</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _next(chosen: Mapping[str, Finished]) -> str:
    """Commands that can be pasted as they are."""
    commands = ["python -m deepfake_cls.train -m lr=1e-3,2e-3,4e-3   # a sweep"]
    if "cnn" in chosen:
        checkpoint = argument("checkpoint", chosen["cnn"].path / "checkpoints" / "last.ckpt")
        use = f"{checkpoint} data=folder data.root=PHOTOS data.resize=true names=true"
        commands.insert(0, f"python -m deepfake_cls.predict {use}   # label a folder of your own")
    return f"<pre>{html.escape(chr(10).join(commands))}</pre>"


def validation_images(record: Record) -> SplitImages | None:
    """The validation images that a run was scored on, where they are still at hand."""
    settings: dict[str, Any] = record.config["data"]
    try:
        config = source[settings["name"]].Config(**settings)
        height, width = record.data["size"]
        return open_images(read_manifest(config), "validation", config, progress=False, size=(height, width))
    except InputError:
        return None


def _samples(record: Record) -> dict[str, NDArray[np.uint8]] | None:
    """Validation images by class."""
    split = validation_images(record)
    if split is None or not set(range(len(record.data["classes"]))) <= set(split.labels.tolist()):
        return None
    return by_class(split.store.images, split.labels, record.data["classes"], SAMPLES)


def image(figure: Figure, note: str) -> str:
    """A figure with its caption, inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    return f'<figure><img alt="{html.escape(note)}" src="data:image/png;base64,{data}">{caption}</figure>'
