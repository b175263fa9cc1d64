"""Which runs are which arm of which experiment: declarations from ``conf/``, runs from records.

An experiment is declared before it is run, in ``conf/experiment``: its arms are the product of what its sweeper varies
but for the seed. A run belongs to an arm when its configuration is the arm's. So arms that tables share are run once,
and a run that was made without a sweep counts all the same.
"""

from __future__ import annotations

import copy
import itertools
import json
import shlex
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from deepfake_cls.config import KnnConfig, TrainConfig, conf_dir
from deepfake_cls.errors import InputError
from deepfake_cls.overrides import to_hydra
from deepfake_cls.records import RESULT_VERSION, digest_of
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import Evidence, gather
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.report.render import plural
from deepfake_cls.run_key import hashed_config
from deepfake_cls.validation import validate

SCHEMAS: dict[str, tuple[str, type]] = {"train": ("cnn", TrainConfig), "knn": ("knn", KnnConfig)}
KNN_GROUPS = ("data", "trainer")  # what is said for training, and means the same for neighbours


@dataclass
class Study:
    """All experiments over one data set at one scale.

    Attributes:
        config: The central configuration, which every arm changes in one thing.
        scale: Name of the scale.
        experiments: By name.
        central: The arm that is the central configuration itself.
        hardware: Device, precision and threads of the runs that count, by kind.
        left_out: Runs of these arms that were made on other hardware, or on other data, and are not mixed in.
    """

    config: TrainConfig
    scale: str
    experiments: dict[str, Experiment]
    central: Arm
    hardware: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    left_out: int = 0

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The evidence of each experiment by name, computed when it is first asked for."""
        return {name: gather(experiment) for name, experiment in self.experiments.items()}

    @property
    def scale_text(self) -> str:
        """``scale tiny: width 8, 4 epochs``."""
        return f"scale {self.scale}: width {self.config.width}, {plural(self.config.epochs, 'epoch')}"

    @property
    def verdict_prefix(self) -> str:
        """What stands before a verdict: only runs at the paper's own scale say anything about the paper's claim."""
        return "" if self.scale == "reference" else f"at scale {self.scale}: "

    def includes(self, experiment: Experiment) -> bool:
        """Whether an experiment has tables over this data: controls exist on embedded data only."""
        return self.config.data.name == "synthetic" or not experiment.name.endswith("_controls")

    def missing(self, seeds: int, table: int | None = None) -> list[str]:
        """Runs that a table still needs, in words.

        Args:
            seeds: Of every trained arm; nearest neighbours need one run.
            table: Its number; None asks for all.
        """
        wanted = [
            (experiment.name, experiment.entry, arm)
            for experiment in self.experiments.values()
            for arm in experiment.arms
            if table in (None, experiment.table) or (table == 7 and experiment.entry == "knn")
            if self.includes(experiment)
        ]
        if table in (None, 7, 8, 9):
            wanted.append(("the central arm", "train", self.central))
        return [
            f"{name} ({arm.label}), seed {seed}"
            for name, entry, arm in wanted
            for seed in range(seeds if entry == "train" else 1)
            if seed not in arm.runs
        ]

    def compares(self) -> bool:
        """Whether some experiment has runs of two arms."""
        return any(sum(bool(arm.runs) for arm in e.arms) > 1 for e in self.experiments.values())


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # inside an entry point
        yield
    else:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield


def declared(words: Sequence[str] = ()) -> Study:
    """Read the experiments, without runs.

    Args:
        words: What holds for all arms, as on the command line of ``train``: ``data=unibuc``, ``scale=tiny``, ...

    Raises:
        InputError: If the words mean nothing to an entry point.
    """
    with _hydra():
        composed = compose("train", to_hydra(words), return_hydra_config=True)
    scale = str(composed.hydra.runtime.choices.scale)
    bare = _bare(composed)
    files = sorted((conf_dir() / "experiment").glob("*.yaml"))
    experiments = {file.stem: _read(file, bare) for file in files}
    return Study(validate(bare, TrainConfig), scale, experiments, Arm("central"))


def fill(words: Sequence[str], records: Sequence[Finished]) -> Study:
    """Read the experiments and sort the runs into their arms.

    Only runs on the same device, in the same precision, with the same threads and over the same images stand in one
    table: of several kinds of hardware the one with the most runs is taken, of several versions of the data, and of
    several runs of one arm and seed, the newest. A seed has failed where no run of it is left.

    Args:
        words: See :func:`declared`.
        records: All runs, oldest first.
    """
    study = declared(words)
    same: dict[tuple[str, tuple[str, ...]], list[Arm]] = {("train", ()): [study.central]}
    for experiment, arm in _arms(study):
        same.setdefault((experiment.entry, arm.words), []).append(arm)
    places: dict[str, list[Arm]] = {}
    seeds = sorted({entry.record.seed for entry in records})
    with _hydra():
        bases = {point: _bare(compose(point, to_hydra(_known(point, words)))) for point in {point for point, _ in same}}
        for (point, own), arms in same.items():
            for key in _keys(point, _composed(point, bases[point], words, own), seeds):
                places.setdefault(key, []).extend(arms)
    matched = [(entry, places[key]) for entry in records if (key := _record_key(entry)) in places]
    good = [entry for entry, _ in matched if entry.record.status == "ok"]
    for kind in sorted({entry.record.kind for entry in good}):
        groups = Counter(_hardware(entry) for entry in good if entry.record.kind == kind)
        study.hardware[kind] = max(groups, key=lambda found: (groups[found], found))
    here = [entry for entry in good if _hardware(entry) == study.hardware[entry.record.kind]]
    newest = {_data_key(entry): entry.record.data["fingerprint"] for entry in here}
    used = {id(entry) for entry in here if entry.record.data["fingerprint"] == newest[_data_key(entry)]}
    study.left_out = len(good) - len(used)
    for entry, arms in matched:
        for arm in arms:
            if entry.record.status != "ok":
                arm.failed[entry.record.seed] = entry.record.error or "failed"
            elif id(entry) in used:
                arm.runs[entry.record.seed] = entry
    for arm in itertools.chain.from_iterable(same.values()):
        # By seed, and no seed twice: means and tables may not depend on the order in which runs were made.
        arm.runs = dict(sorted(arm.runs.items()))
        arm.failed = {seed: error for seed, error in sorted(arm.failed.items()) if seed not in arm.runs}
    return study


def without_repeats(records: Sequence[Finished]) -> list[Finished]:
    """Each result once: of several runs of one configuration on the same data and hardware, the newest.

    A run is repeated under another identity after an edit of the sources that results depend on.

    Args:
        records: All runs, oldest first; failed ones are kept.
    """
    newest: dict[Hashable, Finished] = {}
    for entry in records:
        record = entry.record
        result = (
            (_record_key(entry), record.data["fingerprint"], _hardware(entry)) if record.status == "ok" else entry.path
        )
        newest.pop(result, None)  # so that the order is by time
        newest[result] = entry
    return list(newest.values())


def runs_of(experiment: Experiment, words: Sequence[str] = ()) -> list[Finished]:
    """The runs of an experiment, oldest first.

    Args:
        experiment: From :func:`fill`.
        words: What it was filled with; they become part of the command that the error names.

    Raises:
        InputError: If there is none, saying what to type.
    """
    runs = [entry for arm in experiment.arms for entry in arm.runs.values()]
    if not runs:
        command = shlex.join([f"experiment={experiment.name}", *_known(experiment.entry, words)])
        start = f"python -m deepfake_cls.{experiment.entry} {command}"
        raise InputError(f"{experiment.name}: no run of it with these words. Start with: {start}")
    return sorted(runs, key=lambda entry: entry.time)


def _arms(study: Study) -> Iterator[tuple[Experiment, Arm]]:
    for experiment in study.experiments.values():
        for arm in experiment.arms:
            if study.includes(experiment):
                yield experiment, arm


def _read(file: Path, base: DictConfig) -> Experiment:
    """One declaration; its arms are the product of the sweeper's parameters, seeds aside.

    Args:
        file: In ``conf/experiment``.
        base: The central configuration, which the declaration may refer to, as in ``${sweep.lr}``.
    """
    own = OmegaConf.load(file)
    whole: Any = OmegaConf.merge(base, {"experiment": own.experiment, "params": own.hydra.sweeper.params})
    told: Any = OmegaConf.to_container(whole.experiment, resolve=True)
    swept = []
    for key, value in whole.params.items():
        if key != "seed":
            override = OverridesParser.create().parse_overrides([f"{key}={value}"])[0]
            assert override.is_sweep_override()
            swept.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    arms = [Arm(words=words, **arm) for words, arm in zip(itertools.product(*swept), told["arms"], strict=True)]
    entry, by_k = told["entry"], told.get("by_k", {})
    return Experiment(file.stem, told["table"], told["title"], entry, told["baseline"], arms, by_k)


def _composed(entry: str, base: DictConfig, words: Sequence[str], own: Sequence[str]) -> DictConfig:
    """The configuration of an arm.

    Hydra takes a tenth of a second for each composition; where an arm only sets values, the base with these values
    is the same.

    Args:
        entry: The entry point.
        base: The configuration that the words alone give.
        words: What holds for all arms.
        own: What sets this one apart.
    """
    overrides = OverridesParser.create().parse_overrides([*own])
    if any(isinstance(OmegaConf.select(base, o.key_or_group), DictConfig | None) for o in overrides):
        return _bare(compose(entry, to_hydra([*_known(entry, words), *own])))
    arm = copy.deepcopy(base)
    for override in overrides:
        OmegaConf.update(arm, override.key_or_group, override.value())
    return arm


def _known(entry: str, words: Sequence[str]) -> list[str]:
    """The words that mean something to an entry point."""
    if entry == "train":
        return [*words]
    return [word for word in words if word.lstrip("+~").split("=")[0].split(".")[0] in KNN_GROUPS]


def _bare(composed: DictConfig) -> DictConfig:
    """Without Hydra's own node."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _keys(entry: str, composed: DictConfig, seeds: Sequence[int]) -> Iterator[str]:
    """What the records of one arm are recognised by, for each seed."""
    kind, schema = SCHEMAS[entry]
    each = "seed}" in OmegaConf.to_yaml(composed)  # such as data.fold=${seed}; else one check of the types will do
    tree: dict[str, Any] = {}
    for seed in seeds:
        if each or not tree:
            OmegaConf.update(composed, "seed", seed)
            tree = asdict(validate(composed, schema))
        digests = {"init": digest_of("init", tree["init"])} if tree.get("init") else {}
        yield _key(kind, {**tree, "seed": seed}, RESULT_VERSION, digests)


def _key(kind: str, config: dict[str, Any], version: int, digests: dict[str, str]) -> str:
    return json.dumps([kind, hashed_config(kind, config), version, digests], sort_keys=True)


def _record_key(entry: Finished) -> str:
    record = entry.record
    return _key(record.kind, record.config, record.result_version, record.digests)


def _data_key(entry: Finished) -> str:
    return json.dumps(hashed_config(entry.record.kind, entry.record.config)["data"], sort_keys=True)


def _hardware(entry: Finished) -> tuple[str, str, int]:
    record = entry.record
    device = record.device if record.processes == 1 else f"{record.processes} × {record.device}"
    return device, record.precision, record.threads
