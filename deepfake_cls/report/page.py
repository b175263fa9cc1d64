"""The page: one HTML file, figures included, that can be mailed and opened without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from deepfake_cls.commands import OF_ONE_RUN, command, label_command, overrides_of, shared_overrides
from deepfake_cls.records import Record, write_atomically
from deepfake_cls.report import plots
from deepfake_cls.report.claims import findings
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.render import Table, hardware_text, plural
from deepfake_cls.report.study import Study
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import accuracy_text, correct_of, time_text

NAMES = {"cnn": "CNN", "knn": "KNN", "evaluate": "Evaluation"}
RUN_SETTINGS = ("channels", "width", "epochs", "lr", "dropout", "features", "tta")


def environment() -> Environment:
    """The templates, which escape all text."""
    templates = Environment(
        loader=PackageLoader("deepfake_cls.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["png"] = _data_uri
    return templates


def write_page(
    path: Path,
    runs: Sequence[Finished],
    chosen: Mapping[str, Finished],
    study: Study,
    tables: Sequence[Table],
) -> Path:
    """Write the page and return its path.

    Args:
        path: The HTML file.
        runs: All runs, for the list at the end.
        chosen: The run of each kind that the first part shows; all on the same data.
        study: Experiments with their runs, for the second part; omitted unless two arms of an experiment have runs.
        tables: The tables of the second part.
    """
    models = {kind: chosen[kind].record for kind in ("cnn", "knn") if kind in chosen} or {
        kind: run.record for kind, run in chosen.items()
    }
    first = next(iter(models.values()))
    page = (
        environment()
        .get_template("page.html")
        .render(
            data=first.data,
            cards=[_card(kind, record) for kind, record in models.items()],
            accuracy=plots.accuracy_plot(models, NAMES),
            confusions=[plots.confusion_plot(record, NAMES[kind]) for kind, record in models.items()],
            recall=_recall(models),
            model_names=[NAMES[kind] for kind in models],
            learning=plots.learning_plot(models["cnn"]) if "cnn" in models else None,
            classes=plots.classes_plot(first),
            no_match=study.no_match(*study.arms),
            study=study_context(study, tables) if study.has_comparison() else None,
            runs=[_run(run.record) for run in runs],
            commands=_commands(chosen),
        )
    )
    write_atomically(path, page.encode())
    return path


def study_context(study: Study, tables: Sequence[Table]) -> dict[str, Any]:
    """What the template needs of a study."""
    hardware = [f"{NAMES[kind]}: {hardware_text(*parts)}" for kind, parts in sorted(study.hardware.items())]
    return {
        "scale": study.scale_text,
        "hardware": "; ".join(hardware),
        "omitted": plural(study.omitted, "run") if study.omitted else "",
        "tables": [(table, plots.table_plots(table, study)) for table in tables],
        "findings": findings(study),
    }


def _card(kind: str, record: Record) -> dict[str, str]:
    correct, count = correct_of(record)
    low, high = wilson(correct, count)
    ks = [int(k) for k in record.config["k"]] if kind == "knn" else []
    return {
        "name": NAMES[kind],
        "accuracy": f"{100 * correct / count:.1f} %",
        "interval": f"{100 * low:.1f} to {100 * high:.1f} %",
        "counts": f"{correct:,} of {count:,}",
        "detail": f"k = {5 if 5 in ks else ks[0]}" if ks else f"trained in {time_text(record.seconds.get('fit', 0.0))}",
        "hardware": hardware_text(record.device, record.precision, record.threads),
    }


def _recall(models: Mapping[str, Record]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each class its name, and each model's recall in per cent and in counts."""
    rows = []
    for label, name in enumerate(next(iter(models.values())).data["classes"]):
        counts = [(record.confusion[label][label], sum(record.confusion[label])) for record in models.values()]
        cells = [(f"{100 * hits / count:.1f} %" if count else "–", f"{hits} of {count}") for hits, count in counts]
        rows.append((name if name == str(label) else f"{label}: {name}", cells))
    return rows


def _run(record: Record) -> dict[str, str]:
    settings = [f"{key}={record.config[key]}" for key in RUN_SETTINGS if key in record.config]
    return {
        "kind": NAMES.get(record.kind, record.kind),
        "id": record.identity[:12],
        "settings": ", ".join(settings),
        "data": f"seed {record.seed}, data {record.data.get('name', '–')}",
        "result": accuracy_text(record) if record.status == "ok" else f"failed: {record.error}",
        "time": time_text(record.seconds["total"]) if "total" in record.seconds else "–",
    }


def _commands(chosen: Mapping[str, Finished]) -> list[str]:
    """Commands to continue with on the same data; PHOTOS stands for the user's own images."""
    if "cnn" not in chosen:
        shared = shared_overrides("train", next(iter(chosen.values())).record.config)
        return [f"{command('train', ['-m', *shared, 'lr=1e-3,2e-3,4e-3'])}   # a sweep"]
    run = chosen["cnn"]
    rate = run.record.config["lr"]
    others = overrides_of("train", run.record.config, omit=[*OF_ONE_RUN, "lr"])
    return [
        f"{label_command(run.path / 'checkpoints' / 'last.ckpt', run.record.config)}   # label your own images",
        f"{command('train', ['-m', *others, f'lr={rate / 2:g},{rate:g},{2 * rate:g}'])}   # a sweep",
    ]


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
