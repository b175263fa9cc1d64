"""Group runs by their data, and choose for each model the configuration that the page shows first."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.commands import OF_ONE_RUN, command, overrides_of
from deepfake_cls.config import ReportConfig
from deepfake_cls.data.sources import source
from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable
from deepfake_cls.notation import override, plural, value_text
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.render import mean_text, percent
from deepfake_cls.report.study import Study, hardware_of
from deepfake_cls.settings import recipe, recipe_text
from deepfake_cls.stats.intervals import Summary, summarise, wilson
from deepfake_cls.summary import correct_of, effective_of, groups_text

MODELS = ("cnn", "knn", "statistics")  # kinds of runs that a section shows; evaluations only if it has neither
COLUMNS = ["model", "settings", "accuracy %", "95 % interval", "images"]  # of configuration_rows
INTERVALS = (
    "One run: 95 % Wilson interval over images. Several seeds: on each side the wider of the 95 % t interval over seeds"
    " and the Wilson interval over images."
)
RULE = (
    "Shown for each model: the configuration that this command names; without such runs, the one with the most seeds;"
    " of equals the one closest to the defaults, then the newest. Never chosen by its accuracy."
)


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration on a data set: equal settings and hardware.

    Attributes:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        runs: One for each seed and fold, in their order.
        reason: Why it stands for its kind; empty for the others.
    """

    kind: str
    runs: tuple[Finished, ...]
    reason: str = ""

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Numbers of correct and of all predictions, for each run."""
        return [correct_of(run.record) for run in self.runs]

    @property
    def images(self) -> int:
        """Number of different images: all seeds score the same ones, each fold others."""
        return sum({_fold(run): count for run, (_, count) in zip(self.runs, self.counts, strict=True)}.values())

    @property
    def effective(self) -> float:
        """Number of independent images that ``images`` are worth; fewer than these where they have groups."""
        shares = [effective_of(run.record) / count for run, (_, count) in zip(self.runs, self.counts, strict=True)]
        return self.images * (sum(shares) / len(shares))

    @property
    def summary(self) -> Summary:
        """Accuracy over seeds."""
        return summarise([correct / count for correct, count in self.counts])

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix (C, C), summed over seeds."""
        matrices: NDArray[np.int64] = np.array([run.record.confusion for run in self.runs], dtype=np.int64)
        return np.asarray(matrices.sum(axis=0))


def estimate(counts: Sequence[tuple[int, int]], images: float) -> tuple[float, float, float]:
    """Mean accuracy over seeds with its interval, fractions: see ``INTERVALS``.

    Equal accuracies of few seeds say nothing about other images, so the interval is never narrower than Wilson's.

    Args:
        counts: Numbers of correct and of all predictions of each seed.
        images: Number of different images among them, or of the independent images that they are worth.
    """
    summary = summarise([correct / count for correct, count in counts])
    low, high = wilson(summary.mean * images, images)
    if summary.low is not None and summary.high is not None:
        low, high = min(low, max(0.0, summary.low)), max(high, min(1.0, summary.high))
    return summary.mean, low, high


@dataclass(frozen=True)
class DataSet:
    """The successful runs on one data set.

    Attributes:
        name: The name of its folder, with its parent if two have this name; or of its layout.
        description: Layout, classes, sizes, fingerprint.
        runs: Oldest first.
        configurations: By kind, and of each kind the headline first.
    """

    name: str
    description: str
    runs: tuple[Finished, ...]
    configurations: tuple[Configuration, ...]

    @property
    def headlines(self) -> tuple[Configuration, ...]:
        """The configuration that stands for each kind, see ``RULE``."""
        return tuple(configuration for configuration in self.configurations if configuration.reason)

    @property
    def classes(self) -> list[str]:
        """Class names as they are printed, in label order."""
        return [*map(printable, self.runs[-1].record.data["classes"])]


def data_sets(runs: Sequence[Finished], study: Study) -> list[DataSet]:
    """Group runs by their data: first the data that the study's overrides select, then by the newest training.

    Data sets are the same if their fingerprint is. The folds of a data set are one data set. An evaluation belongs to
    the data set of the same folder and settings, since its fingerprint is that of one split only.

    Args:
        runs: All runs, oldest first; failed ones are ignored, since their data is unknown.
        study: The study with its runs.

    Raises:
        InputError: If every run failed.
    """
    successful = [run for run in runs if run.record.status == "ok"]
    if not successful:
        last = runs[-1]
        raise InputError(
            f"All {len(runs)} runs failed, the last one with {last.record.error!r} ({last.path / 'result.json'});"
            " correct the cause and repeat its command."
        )
    groups: dict[str, list[Finished]] = defaultdict(list)
    newest: dict[str, str] = {}  # fingerprint or folds, by folder and settings
    for run in successful:
        if run.record.kind in MODELS:
            key = newest[_source(run)] = _source(run) if _fold(run) is not None else run.record.data["fingerprint"]
            groups[key].append(run)
    for run in successful:
        if run.record.kind not in MODELS:
            groups[newest.get(_source(run), run.record.data["fingerprint"])].append(run)
    order = sorted(groups.values(), key=lambda group: _priority(group, study), reverse=True)
    sets = [_data_set(sorted(group, key=lambda run: run.time), study) for group in order]
    names = Counter(data.name for data in sets)
    return [data if names[data.name] == 1 else _with_parent(data) for data in sets]


def _with_parent(data: DataSet) -> DataSet:
    """Add the parent folder to the name of a data set whose folder's name is not unique."""
    root = data.runs[-1].root
    return data if root is None else replace(data, name="/".join(root.parts[-2:]))


def configuration_rows(data: DataSet, names: Mapping[str, str]) -> list[list[str]]:
    """Rows of a table of all configurations on a data set, see ``COLUMNS``; names are by kind."""
    rows = []
    for configuration, settings in zip(data.configurations, settings_texts(data.configurations), strict=True):
        _, low, high = estimate(configuration.counts, configuration.effective)
        accuracy, interval = mean_text(configuration.summary), f"{percent(low)} to {percent(high)}"
        images = f"{configuration.counts[0][1]:,}{groups_text(configuration.runs[0].record)}"
        rows.append([names[configuration.kind], settings, accuracy, interval, images])
    return rows


def settings_texts(configurations: Sequence[Configuration]) -> list[str]:
    """The settings of each configuration; with equal settings, also what differs: hardware, version of the results."""
    texts = [recipe_text(each.kind, each.runs[0].record.config) or "the defaults" for each in configurations]
    groups: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    parts = [_machine(each.runs[0]) for each in configurations]
    for each, text, own in zip(configurations, texts, parts, strict=True):
        groups[each.kind, text].append(own)
    labels = []
    for each, text, own in zip(configurations, texts, parts, strict=True):
        differ = [len({*values}) > 1 for values in zip(*groups[each.kind, text], strict=True)]
        labels.append(", ".join([text, *compress(own, differ)]))
    return labels


def _machine(run: Finished) -> tuple[str, str, str, str]:
    """What else than settings tells configurations apart, see :func:`_configuration`."""
    device, precision, threads = hardware_of(run)
    return device, precision, plural(threads, "thread"), f"results of version {run.record.result_version}"


def notes(sets: Sequence[DataSet], study: Study, folder: str) -> list[str]:
    """What the reader of all tables has to know: see :meth:`Study.notes`.

    If the command names no settings, and no run has the default ones, the command for the runs in the first section.

    Args:
        sets: The data sets of the page.
        study: The study with its runs.
        folder: The folder of the runs, as the user gave it.
    """
    named = [override for override in study.overrides if not override.startswith("plugins=")]
    networks = [each.runs[0] for each in sets[0].headlines if each.kind == "cnn"] if sets else []
    networks = [run for run in networks if run.hashed["data"]["name"] in source and _fold(run) is None]
    if named or study.main.runs or not networks:
        return study.notes()
    arguments = [] if folder == ReportConfig.runs else [override("runs", folder)]
    omit = (*OF_ONE_RUN, "plugins", "trainer", "logger")
    arguments += [*overrides_of("report", networks[0].record.config, omit), *study.overrides]
    return [
        f"The tables of the paper show the settings of this command, {study.settings}, which no training has."
        f" For the trainings on {sets[0].name}: {command('report', arguments)}"
    ]


def _priority(group: Sequence[Finished], study: Study) -> tuple[Any, ...]:
    kinds = ("cnn", "knn", "statistics", "evaluate")
    times = [max((run.time for run in group if run.record.kind == kind), default=-1.0) for kind in kinds]
    return max(study.selection(run) for run in group), *times


def _fold(run: Finished) -> Any:
    return run.hashed["data"].get("fold")


def _source(run: Finished) -> str:
    """Where the data comes from: folder, settings without the fold, size of the images, classes.

    An evaluation takes the size from its model, so that ``data.size`` need not be among its settings.
    """
    data = run.record.data
    settings = {key: value for key, value in run.hashed["data"].items() if key not in ("fold", "size")}
    return json.dumps([str(run.root), settings, data["size"], data["classes"]], sort_keys=True)


def _data_set(runs: Sequence[Finished], study: Study) -> DataSet:
    data = runs[-1].record.data
    name = data["name"] if runs[-1].root is None else runs[-1].root.name
    models = [run for run in runs if run.record.kind in MODELS] or runs
    kinds = sorted({run.record.kind for run in models})  # the CNN first
    configurations = [_configurations([run for run in models if run.record.kind == kind], study) for kind in kinds]
    return DataSet(name, ", ".join(_describe(models[-1], models)), tuple(runs), tuple(chain(*configurations)))


def _describe(run: Finished, runs: Sequence[Finished]) -> list[str]:
    """The parts of a description: ``folder``, ``3 classes``, ``1,200 train``, ``64×64``, ``fingerprint 12ab``."""
    data, settings = run.record.data, run.hashed["data"]
    parts = [] if run.root is None or run.root.name == data["name"] else [data["name"]]
    parts.append(f"{len(data['classes'])} classes")
    if _fold(run) is None:
        parts += [f"{count:,} {split}" for split, count in data["sizes"].items()]
    else:
        total, folds = sum(data["sizes"].values()), {_fold(run) for run in runs}
        parts.append(f"{total:,} images, {len(folds)} of {run.record.config['data']['folds']} folds for validation")
    parts.append("×".join(map(str, data["size"])))
    shown = ("name", "fold", "folds", "size", "image_size", "train_size", "validation_size", "test_size")
    parts += [f"{key}={value_text(value)}" for key, value in settings.items() if key not in shown]
    return parts if _fold(run) is not None else [*parts, f"fingerprint {data['fingerprint'][:12]}"]


def _configurations(runs: Sequence[Finished], study: Study) -> list[Configuration]:
    """Group the runs of one kind; first the configuration that ``RULE`` chooses."""
    groups: dict[str, dict[tuple[float, float], Finished]] = defaultdict(dict)
    for run in runs:  # oldest first: of each seed and fold, the newest run remains
        fold = _fold(run)
        groups[_configuration(run)][run.hashed.get("seed", 0), -1 if fold is None else fold] = run
    every = [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in groups.values()]
    candidates, reason = every, "the only configuration"
    for text, criterion in _criteria(study):
        if len(candidates) > 1:
            reason = text.format(len(candidates))
            best = max(map(criterion, candidates))
            candidates = [candidate for candidate in candidates if criterion(candidate) == best]
    kind, headline = runs[0].record.kind, candidates[0]
    others = sorted(
        (each for each in every if each is not headline), key=lambda each: recipe_text(kind, each[0].record.config)
    )
    return [Configuration(kind, headline, reason), *(Configuration(kind, each) for each in others)]


def _configuration(run: Finished) -> str:
    """What the seeds of one configuration have in common: settings, hardware, code that made the result."""
    record = run.record
    settings = {key: value for key, value in run.hashed.items() if key not in ("data", "seed")}
    return json.dumps([settings, hardware_of(run), record.digests, record.result_version], sort_keys=True)


def _criteria(study: Study) -> list[tuple[str, Callable[[Sequence[Finished]], float]]]:
    """Criteria in their order, with the reason that each gives; the largest value is chosen."""
    used = {run.path for run in study.main.runs.values()}
    return [
        ("named by this command, among {} configurations", lambda c: (c[0].path in used) + study.names(c[0])),
        ("the most seeds of {} configurations", len),
        (
            "the closest to the defaults of {} configurations",
            lambda c: -len(recipe(c[0].record.kind, c[0].record.config)),
        ),
        ("the newest of {} configurations", lambda c: max(r.time for r in c)),
    ]
