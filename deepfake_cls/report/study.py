"""Assign runs to the arms of experiments.

A run belongs to an arm if its configuration is that of the arm. So an arm that several tables share is trained once,
and runs that were made without a sweep count too.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deepfake_cls.commands import command
from deepfake_cls.config import KnnConfig, StatisticsConfig, TrainConfig
from deepfake_cls.notation import plural
from deepfake_cls.overrides import key_of
from deepfake_cls.records import RESULT_VERSION, digest_of
from deepfake_cls.report.collect import Finished, data_root
from deepfake_cls.report.evidence import Evidence, gather
from deepfake_cls.report.experiment import (
    Arm,
    Experiment,
    compose_arm,
    compose_base,
    compose_main,
    hydra_ready,
    read_experiments,
)
from deepfake_cls.run_key import hashed_config
from deepfake_cls.stats.compare import Difference
from deepfake_cls.stats.verdict import Claim, ClaimVerdict, judge_claim
from deepfake_cls.validation import validate

PAPER_DATA = "unibuc"
# Keys whose overrides leave the settings of the main arm those of the paper.
PAPER_KEYS = ("data", "scale", "trainer", "logger", "plugins", "launcher", "tta")

# Command: kind of its runs, schema of its configuration.
KINDS: dict[str, tuple[str, type]] = {
    "train": ("cnn", TrainConfig),
    "knn": ("knn", KnnConfig),
    "statistics": ("statistics", StatisticsConfig),
}


@dataclass
class Study:
    """All experiments on one data set at one scale.

    Attributes:
        config: The configuration of the main arm: the defaults with the overrides of the command line. Most arms change
            one value of it.
        scale: Name of the scale.
        experiments: By name.
        main: The main arm.
        overrides: The overrides of the main arm.
        hardware: Device, precision and threads of the runs in use, by kind.
        omitted: Number of runs of these arms that are not used, since their hardware or data differ.
        other_root: Name of the folder of the used runs, if no run is on the folder that the overrides name; else None.
    """

    config: TrainConfig
    scale: str
    experiments: dict[str, Experiment]
    main: Arm
    overrides: tuple[str, ...] = ()
    hardware: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    omitted: int = 0
    other_root: str | None = None

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The evidence of each experiment by name, computed once."""
        return {name: gather(experiment) for name, experiment in self.experiments.items()}

    @property
    def scale_text(self) -> str:
        """``scale tiny (width 8, 4 epochs)``."""
        return f"scale {self.scale} (width {self.config.width}, {plural(self.config.epochs, 'epoch')})"

    @property
    def scale_caveat(self) -> str:
        """The sentence that limits a verdict to the scale of its runs; empty at the paper's own scale."""
        return "" if self.scale == "reference" else f" Verdicts hold at scale {self.scale}, not at the paper's scale."

    @cached_property
    def claims_untested(self) -> str:
        """Why the paper's numbers say nothing about these runs; empty if they can be compared."""
        if self.config.data.name != PAPER_DATA:
            return f"the paper's numbers are those of data={PAPER_DATA}"
        others = [text for text in self.overrides if key_of(text).split(".")[0] not in PAPER_KEYS]
        return f"the paper's settings are not those of {shlex.join(others)}" if others else ""

    def judge_claim(self, difference: Difference | None, claim: Claim | None, p: float | None = None) -> ClaimVerdict:
        """The verdict on a claim of the paper, at the scale of the runs.

        Args:
            difference: Measured; None without runs.
            claim: The paper's difference; None if the paper has none.
            p: Its p value after correction; None for a single claim.
        """
        reason = self.claims_untested or ("the paper has no number" if claim is None else "no runs")
        if self.claims_untested or difference is None or claim is None:
            return ClaimVerdict("not tested", f"not tested: {reason}")
        return judge_claim(difference, claim, p, f"at scale {self.scale}")

    @property
    def arms(self) -> list[Arm]:
        """The main arm and the arms of all experiments."""
        return [self.main, *(arm for experiment in self.experiments.values() for arm in experiment.arms)]

    def includes(self, experiment: Experiment) -> bool:
        """Whether an experiment has tables for this data: controls need the embedded data."""
        return self.config.data.name == "synthetic" or not experiment.name.endswith("_controls")

    def shows(self, experiment: Experiment) -> bool:
        """Whether an experiment has runs to show: of two trained arms, or of one other arm; failed runs count."""
        arms = [arm for arm in experiment.arms if arm.runs or arm.failed]
        return len(arms) >= (2 if experiment.entry == "train" else 1)

    @cached_property
    def root(self) -> Path | None:
        """The folder that the overrides name."""
        return data_root(asdict(self.config.data))

    @cached_property
    def main_settings(self) -> tuple[dict[str, Any], dict[str, Any], str | None]:
        """Settings, data settings and digest of the initial weights of the main arm."""
        hashed = hashed_config("cnn", asdict(self.config))
        digest = digest_of("init", self.config.init) if self.config.init else None
        return _settings(hashed), {**hashed["data"], "fold": None}, digest

    def names(self, run: Finished) -> bool:
        """Whether a run has the settings of the main arm, on whatever data."""
        settings, _, init = self.main_settings
        return run.record.kind == "cnn" and (_settings(run.hashed), run.record.digests.get("init")) == (
            settings,
            init,
        )

    def selection(self, run: Finished) -> tuple[int, bool]:
        """How well the overrides select a run's data; larger is better, (-1, False) is not at all."""
        if not any(text.lstrip("+").startswith("data") for text in self.overrides):
            return -1, False
        data = run.hashed["data"]
        equal = {**data, "fold": None} == self.main_settings[1]
        match = root_match(run, self.root) if data["name"] == self.config.data.name else 0
        return (match, equal) if match or equal else (-1, False)

    def missing(self, seeds: int, table: int | None = None) -> list[str]:
        """Names of the runs that a table still needs.

        Args:
            seeds: Required for every trained arm; KNN and image statistics need one run.
            table: Its number; None for all tables.
        """
        required = [
            (f"{experiment.name} ({arm.label})", experiment.entry, arm)
            for experiment in self.experiments.values()
            for arm in experiment.arms
            if table in (None, experiment.table) or (table == 7 and experiment.entry != "train")
            if self.includes(experiment) and not experiment.grid and not (experiment.optional and table is None)
        ]
        if table in (None, 7, 8, 9):
            required.append(("main arm", "train", self.main))
        return [
            f"{name}, seed {seed}"
            for name, entry, arm in required
            for seed in range(seeds if entry == "train" else 1)
            if seed not in arm.runs
        ]

    def has_comparison(self) -> bool:
        """Whether any experiment has runs of at least two arms."""
        return any(sum(bool(arm.runs) for arm in e.arms) > 1 for e in self.experiments.values())

    def no_match(self, *arms: Arm, experiment: Experiment | None = None) -> list[str]:
        """If these arms or their experiment have no runs to show, a sentence with the command that starts the runs.

        ``experiment`` is that of the arms; None for the main arm.
        """
        if any(arm.runs for arm in arms) and (experiment is None or self.shows(experiment)):
            return []
        settings = self.settings if experiment is None else self._settings_text(experiment.shared(self.overrides))
        return [f"Runs with these settings are missing: {settings}. {self._how_to_run('them', experiment)}"]

    def command(self, experiment: Experiment | None) -> str:
        """The command that starts the runs of an experiment; None for the main arm."""
        if experiment is not None:
            return experiment.command(self.overrides)
        return command("train", [*self.overrides, "-m", "seed=0,1,2"])

    @property
    def settings(self) -> str:
        """``scale=tiny data=folder data.root=PATH``: the overrides, with scale and data."""
        return self._settings_text(self.overrides)

    def _settings_text(self, overrides: Sequence[str]) -> str:
        others = [text for text in overrides if not text.startswith(("scale=", "data="))]
        data = next((text for text in overrides if text.startswith("data=")), f"data={self.config.data.name}")
        return shlex.join([f"scale={self.scale}", data, *others])

    def _how_to_run(self, what: str, experiment: Experiment | None) -> str:
        """The command that starts runs; without the data, that it is missing."""
        if self.root is not None and not self.root.is_dir():
            return f"They cannot be run here: data.root={self.root} does not exist."
        return f"To run {what}: {self.command(experiment)}"

    def notes(self) -> list[str]:
        """What the reader of all tables has to know: runs on another folder, experiments without runs."""
        notes = []
        if self.other_root is not None:
            notes.append(f"No run is on data.root={self.root}. The tables show runs on a folder {self.other_root}.")
        needed = [e for e in self.experiments.values() if self.includes(e) and not (e.grid or e.optional)]
        experiments = [experiment for experiment in needed if not self.shows(experiment)]
        experiments.sort(key=lambda experiment: experiment.table)
        names = [experiment.name for experiment in experiments]
        if not self.main.runs:
            names.insert(0, "main arm (tables 7 to 9)")
        if names:
            start = self._how_to_run("the first", experiments[0] if self.main.runs else None)
            notes.append(
                f"The tables of the paper are incomplete: no runs at these settings yet ({self.settings}) for"
                f" {', '.join(names)}. {start}"
            )
        return notes


def declared(overrides: Sequence[str] = ()) -> Study:
    """Read the experiments, without runs.

    Args:
        overrides: Overrides of ``train`` that all arms share: ``data=unibuc``, ``scale=tiny``, ...

    Raises:
        InputError: If an override is not valid.
    """
    with hydra_ready():
        base, scale = compose_main(overrides)
    return Study(validate(base, TrainConfig), scale, read_experiments(base), Arm("main arm"), tuple(overrides))


def fill(overrides: Sequence[str], runs: Sequence[Finished]) -> Study:
    """Read the experiments and assign runs to their arms, see :func:`declared` and :func:`assign`."""
    return assign(declared(overrides), runs)


def assign(study: Study, runs: Sequence[Finished]) -> Study:
    """Assign runs to the arms of a study.

    Only comparable runs are used: of several folders, those on the one that the overrides name; of each kind, those on
    the hardware with the most runs; of each data configuration, those on its newest data. Of each arm and seed, the
    newest run is used. A seed counts as failed if one of its runs failed and none of its runs is used.
    The study is changed and returned; the runs are ordered oldest first.
    """
    arms_by_key = _arms_by_key(study, sorted({run.record.seed for run in runs}))
    matches = [(run, arms) for run in runs if (arms := _arms_of(run, arms_by_key))]
    matches = _on_the_folder(matches, study)
    successful = [run for run, _ in matches if run.record.status == "ok"]
    for kind in sorted({run.record.kind for run in successful}):
        counts = Counter(hardware_of(run) for run in successful if run.record.kind == kind)
        study.hardware[kind] = max(counts, key=lambda hardware: (counts[hardware], hardware))
    comparable = [run for run in successful if hardware_of(run) == study.hardware[run.record.kind]]
    # Runs are ordered oldest first, so the newest fingerprint remains.
    newest_data = {_data_key(run): run.record.data["fingerprint"] for run in comparable}
    used = {id(run) for run in comparable if run.record.data["fingerprint"] == newest_data[_data_key(run)]}
    study.omitted = len(successful) - len(used)
    for run, arms in matches:
        for arm in arms:
            if run.record.status != "ok":
                arm.failed[run.record.seed] = run.record.error or "failed"
            elif id(run) in used:
                arm.runs[run.record.seed] = run
    for arm in study.arms:
        arm.runs = dict(sorted(arm.runs.items()))  # means and tables must not depend on the order of the runs
        arm.failed = {seed: error for seed, error in sorted(arm.failed.items()) if seed not in arm.runs}
    return study


def without_repeats(runs: Sequence[Finished]) -> list[Finished]:
    """Of several runs of one configuration on the same data and hardware, keep the newest; keep all failed runs.

    Such runs exist after an update of torch, or in a folder chosen by ``run_dir``. The order is oldest first.
    """
    newest: dict[Hashable, Finished] = {}
    for run in runs:
        record = run.record
        result = (_record_key(run), record.data["fingerprint"], hardware_of(run)) if record.status == "ok" else run.path
        newest.pop(result, None)  # keeps the order by time
        newest[result] = run
    return list(newest.values())


def _arms_by_key(study: Study, seeds: Sequence[int]) -> dict[str, list[tuple[Arm, set[int]]]]:
    """Arms by the match keys of their runs, for each seed, with the numbers of neighbours that KNN needs.

    Arms with the same overrides are composed once. A key that an experiment varies is not shared by its arms.
    """
    same: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[Arm]] = {("train", study.overrides, ()): [study.main]}
    for experiment in filter(study.includes, study.experiments.values()):
        shared = experiment.shared(study.overrides)
        for arm in experiment.arms:
            same.setdefault((experiment.entry, shared, arm.overrides), []).append(arm)
    arms_by_key: dict[str, list[tuple[Arm, set[int]]]] = {}
    with hydra_ready():
        bases = {each: compose_base(*each) for each in {(entry, shared) for entry, shared, _ in same}}
        for (entry, shared, overrides), arms in same.items():
            composed = compose_arm(entry, bases[entry, shared], shared, overrides)
            for key in _match_keys(entry, composed, seeds):
                arms_by_key.setdefault(key, []).extend((arm, set(composed.get("k", []))) for arm in arms)
    return arms_by_key


def _arms_of(run: Finished, arms_by_key: Mapping[str, Sequence[tuple[Arm, set[int]]]]) -> list[Arm]:
    """The arms of a run; a KNN run with more numbers of neighbours than an arm needs belongs to it too."""
    record = run.record
    key = _match_key(record.kind, _without_k(run.hashed), record.result_version, record.digests)
    return [arm for arm, ks in arms_by_key.get(key, ()) if ks <= {*record.config.get("k", ())}]


def _on_the_folder(matches: list[tuple[Finished, list[Arm]]], study: Study) -> list[tuple[Finished, list[Arm]]]:
    """Keep the runs on the folder that the overrides name; without any, on a folder of this name, else on any folder.

    The path is not part of a run's key, since data may be moved: a run on a renamed folder is not repeated. Runs on the
    same data, whatever its folder was called, are kept too.
    """
    successful = [run for run, _ in matches if run.record.status == "ok"]
    best = max((root_match(run, study.root) for run in successful), default=0)
    data = {run.record.data["fingerprint"] for run in successful if root_match(run, study.root) >= best}
    kept = [
        (run, arms)
        for run, arms in matches
        if root_match(run, study.root) >= best or run.record.data.get("fingerprint") in data
    ]
    folders = {run.root.name for run, _ in kept if run.root is not None}
    study.other_root = " or ".join(sorted(folders)) if folders and study.root is not None and best == 0 else None
    return kept


def _match_keys(entry: str, composed: DictConfig, seeds: Sequence[int]) -> Iterator[str]:
    """The match key of an arm's run for each seed."""
    kind, schema = KINDS[entry]
    # With interpolations such as data.fold=${seed}, types are checked for each seed; else once is enough.
    per_seed = "seed}" in str(OmegaConf.to_container(composed))
    tree: dict[str, Any] = {}
    for seed in seeds:
        if per_seed or not tree:
            OmegaConf.update(composed, "seed", seed)
            tree = asdict(validate(composed, schema))
        digests = {"init": digest_of("init", tree["init"])} if tree.get("init") else {}
        yield _match_key(kind, _without_k(hashed_config(kind, {**tree, "seed": seed})), RESULT_VERSION, digests)


def _settings(hashed: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a hashed configuration that says what is trained: all but the data and the seed."""
    return {key: value for key, value in hashed.items() if key not in ("data", "seed")}


def _match_key(kind: str, hashed: dict[str, Any], version: int, digests: dict[str, str]) -> str:
    """What a run and its arm have in common; unlike the run key, without data and hardware."""
    return json.dumps([kind, hashed, version, digests], sort_keys=True)


def _record_key(run: Finished) -> str:
    record = run.record
    return _match_key(record.kind, run.hashed, record.result_version, record.digests)


def _without_k(hashed: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hashed.items() if key != "k"}


def root_match(run: Finished, root: Path | None) -> int:
    """2 if a run's data is in this folder, 1 if it is in a folder of the same name, 0 otherwise."""
    if root is None or run.root is None:
        return 0
    return 2 if run.root == root else int(run.root.name == root.name)


def _data_key(run: Finished) -> str:
    return json.dumps(run.hashed["data"], sort_keys=True)


def hardware_of(run: Finished) -> tuple[str, str, int]:
    """Device with the number of processes, precision, threads."""
    record = run.record
    device = record.device if record.processes == 1 else f"{record.processes} × {record.device}"
    return device, record.precision, record.threads
