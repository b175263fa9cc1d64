"""The page: one HTML file, figures included, that can be mailed and opened without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from deepfake_cls.commands import OF_ONE_RUN, command, label_command, overrides_of, shared_overrides
from deepfake_cls.files import write_atomically
from deepfake_cls.notation import plural
from deepfake_cls.report import plots
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.datasets import COLUMNS, RULE, Configuration, DataSet, configuration_rows, estimate
from deepfake_cls.report.render import DASH, Table, hardware_text
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables.discrepancies import findings
from deepfake_cls.settings import recipe_text
from deepfake_cls.stats.verdict import ClaimWord, Word
from deepfake_cls.summary import accuracy_text, groups_text, time_text
from deepfake_cls.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment

NAMES = {"cnn": "CNN", "knn": "KNN", "statistics": "Image statistics", "evaluate": "Evaluation"}
BOTH = " (the wider of that over seeds and that over images)"
RUN_SETTINGS = ("channels", "width", "epochs", "lr", "dropout", "features", "tta")


def report_templates() -> Environment:
    """The templates of the report."""
    templates = environment("deepfake_cls.report")
    templates.filters["chip"] = _chip
    return templates


def write_page(
    path: Path,
    runs: Sequence[Finished],
    sets: Sequence[DataSet],
    study: Study,
    tables: Sequence[Table],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page and return its path.

    Args:
        path: The HTML file.
        runs: All runs, for the list at the end.
        sets: The data sets, see :func:`deepfake_cls.report.datasets.data_sets`; the first has the longest section.
        study: Experiments with their runs, for the tables; omitted unless two arms of an experiment have runs.
        tables: The tables.
        notes: Sentences about the tables, see :func:`deepfake_cls.report.datasets.notes`.
    """
    first = sets[0]
    networks = [headline for headline in first.headlines if headline.kind == "cnn"]
    page = (
        report_templates()
        .get_template("page.html")
        .render(
            rule=RULE,
            first=_section(first),
            others=[_section(each) for each in sets[1:]],
            accuracy=plots.accuracy_plot(first.headlines, NAMES),
            learning=plots.learning_plot(networks[0]) if networks else None,
            classes=plots.classes_plot(first.headlines[0].runs[0].record),
            notes=notes,
            study=study_context(study, tables, sets) if study.has_comparison() else None,
            runs=[_run(run) for run in runs],
            commands=_commands({headline.kind: headline.runs[0] for headline in first.headlines}),
        )
    )
    write_atomically(path, page.encode())
    return path


def study_context(study: Study, tables: Sequence[Table], sets: Sequence[DataSet]) -> dict[str, Any]:
    """What the template needs of a study."""
    path = next(run.path for arm in study.arms for run in arm.runs.values())
    hardware = [f"{NAMES[kind]}: {hardware_text(*parts)}" for kind, parts in sorted(study.hardware.items())]
    return {
        "data": next(data.name for data in sets if path in [run.path for run in data.runs]),
        "scale": study.scale_text,
        "hardware": "; ".join(hardware),
        "omitted": plural(study.omitted, "run") if study.omitted else "",
        "about": [table for table in tables if table.number is None],
        "tables": [(table, plots.table_plots(table, study)) for table in tables if table.number is not None],
        "findings": findings(study),
    }


def _section(data: DataSet) -> dict[str, Any]:
    """What the template shows of a data set."""
    return {
        "name": data.name,
        "description": data.description,
        "chance": f"{100 / len(data.classes):.1f}\N{NO-BREAK SPACE}%",
        "cards": [_card(headline) for headline in data.headlines],
        "confusions": [plots.confusion_plot(headline, _title(headline)) for headline in data.headlines],
        "models": [_title(headline) for headline in data.headlines],
        "recall": _recall(data),
        "columns": COLUMNS,
        "importance": _importance(data),
        "configurations": configuration_rows(data, NAMES) if len(data.configurations) > len(data.headlines) else [],
    }


def _title(headline: Configuration) -> str:
    """``CNN``, or with several seeds ``CNN, sum over 3 seeds``."""
    count = len(headline.runs)
    return NAMES[headline.kind] + (f", sum over {plural(count, 'seed')}" if count > 1 else "")


def _card(headline: Configuration) -> dict[str, str]:
    records = [run.record for run in headline.runs]
    record, summary = records[0], headline.summary
    counts = headline.counts
    value, low, high = estimate(counts, headline.effective)
    images = f"{min(count for _, count in counts):,}"
    ks = [int(k) for k in record.config["k"]] if headline.kind == "knn" else []
    stage, verb = ("evaluate", "evaluated") if headline.kind == "evaluate" else ("fit", "trained")
    seconds = sum(each.seconds.get(stage, 0.0) for each in records) / len(records)
    several = summary.sd is not None
    split = record.config.get("split", "validation")
    return {
        "name": NAMES[headline.kind],
        "accuracy": f"{100 * value:.1f} ± {100 * summary.sd:.1f} %"
        if summary.sd is not None
        else f"{100 * value:.1f} %",
        "measure": f"mean ± standard deviation of {split} accuracy over {plural(len(records), 'seed')}"
        if several
        else f"{split} accuracy",
        "interval": f"95 % interval{BOTH if several else ''} {100 * low:.1f} to {100 * high:.1f} %",
        "counts": f"{images} images{groups_text(record)} each"
        if several
        else f"{counts[0][0]:,} of {images} images{groups_text(record)} correct",
        "detail": f"k = {5 if 5 in ks else ks[0]}" if ks else f"{verb} in {time_text(seconds)}",
        "hardware": hardware_text(record.device, record.precision, record.threads),
        "settings": recipe_text(headline.kind, headline.runs[0].record.config),
        "reason": headline.reason,
    }


def _recall(data: DataSet) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each class its name, and each model's recall in per cent and in counts, summed over seeds."""
    rows = []
    for label, name in enumerate(data.classes):
        matrices = [headline.confusion for headline in data.headlines]
        counts = [(int(matrix[label, label]), int(matrix[label].sum())) for matrix in matrices]
        cells = [(f"{100 * hits / count:.1f} %" if count else DASH, f"{hits:,} of {count:,}") for hits, count in counts]
        rows.append((f"class {name}" if name.isdecimal() else name, cells))
    return rows


def _importance(data: DataSet) -> dict[str, Any] | None:
    """Importance of the groups of image statistics, of the first seed; None without such a run."""
    runs = [headline.runs[0] for headline in data.headlines if headline.kind == "statistics"]
    if not runs or not runs[0].record.importance:
        return None
    rows = runs[0].record.importance
    pairs = [(int(a), int(b)) for a, b, _ in rows[0]["pairs"]]
    cells = [
        [
            row["group"],
            f"{100 * row['acc']:.1f}",
            f"{100 * row['drop']:.1f}" if "drop" in row else DASH,
            *(f"{100 * accuracy:.1f}" for *_, accuracy in row["pairs"]),
        ]
        for row in rows
    ]
    names = [f"{data.classes[a]} / {data.classes[b]}" for a, b in pairs]
    return {"columns": ["group", "alone %", "drop, points", *names], "rows": cells}


def _run(run: Finished) -> dict[str, str]:
    record = run.record
    settings = [f"{key}={record.config[key]}" for key in RUN_SETTINGS if key in record.config]
    if record.kind == "statistics":
        settings = [recipe_text(record.kind, record.config) or "the defaults"]
    layout = record.config.get("data", {}).get("name", DASH)
    data = layout if run.root is None else f"{run.root.name} ({layout})"
    fingerprint = f", fingerprint {record.data['fingerprint'][:12]}" if "fingerprint" in record.data else ""
    return {
        "kind": NAMES.get(record.kind, record.kind),
        "id": record.identity[:12],
        "settings": ", ".join(settings),
        "data": f"seed {record.seed}, data {data}{fingerprint}",
        "result": accuracy_text(record) if record.status == "ok" else f"failed: {record.error}",
        "time": time_text(record.seconds["total"]) if "total" in record.seconds else DASH,
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


def _chip(cell: str) -> str:
    """The CSS class of a cell that contains a verdict; empty for other cells."""
    word, _, undecided = cell.partition(", ")
    known = word in (*get_args(Word), *get_args(ClaimWord))
    return "" if not known else "undecided" if undecided else word.replace(" ", "-")
