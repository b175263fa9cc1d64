"""Finished runs as arms of a comparison: runs that differ only in their seed are one arm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, digest_of, read_predictions, read_record
from deepfake_cls.report.collect import Finished
from deepfake_cls.report.evidence import Evidence, gather
from deepfake_cls.report.experiment import Arm, Experiment
from deepfake_cls.run_key import hashed_config
from deepfake_cls.settings import differences


@dataclass(frozen=True)
class Compared:
    """Runs in comparison with the first of them.

    Attributes:
        evidence: Its rows are the arms, the baseline first.
        settings: For each arm, the settings in which the arms differ.
        remarks: Sentences about what the comparison leaves out or mixes.
    """

    evidence: Evidence
    settings: list[str]
    remarks: list[str]


def compare(runs: Sequence[Finished], names: Sequence[str]) -> Compared:
    """Compare runs with the first one; several seeds of one configuration are paired by seed.

    Args:
        runs: Finished runs, the baseline first.
        names: A short name for each.

    Raises:
        InputError: If there are fewer than two runs, one is given twice, or their images or seeds differ.
    """
    groups = _groups(runs)
    arms = [
        Arm(names[runs.index(group[0])] + (f" +{len(group) - 1}" if len(group) > 1 else ""), runs=_by_seed(group))
        for group in groups
    ]
    remarks = _pair_seeds(arms)
    _require_same_labels(arms)
    evidence = gather(Experiment("compare", 0, "", "train", 0, arms))
    if evidence.problems:
        raise InputError(f"{'; '.join(evidence.problems)} Compare runs on one data set and split.")
    first = [group[0].record for group in groups]
    return Compared(evidence, _settings(first), [*remarks, *_mixtures(runs)])


def _groups(runs: Sequence[Finished]) -> list[list[Finished]]:
    """Runs of one configuration, in the order of the first of each."""
    if len({run.path.resolve() for run in runs}) < max(len(runs), 2):
        raise InputError("expected two or more different runs, the baseline first; deepfake-cls runs lists them.")
    places: dict[str, Path] = {}
    for run in runs:
        other = places.setdefault(run.record.identity, run.path)
        if other != run.path:
            raise InputError(f"{other} and {run.path} are the same run; give one of them.")
    by_key: dict[str, list[Finished]] = {}
    for run in runs:
        by_key.setdefault(_configuration(run.record), []).append(run)
    groups = []
    for group in by_key.values():
        repeated = len({run.record.seed for run in group}) < len(group)  # such as on other hardware
        groups += [[run] for run in group] if repeated or len(by_key) == 1 else [group]
    return groups


def _configuration(record: Record) -> str:
    """What the seeds of an arm have in common."""
    digests = {**record.digests}
    config = hashed_config(record.kind, record.config)
    parts: list[Any] = [record.kind, config, record.result_version]
    if record.kind == "evaluate" and (training := _training_of(record)) is not None:
        # The network of each seed has a checkpoint of its own.
        del digests["checkpoint"]
        trained = hashed_config(training.kind, training.config)
        parts += [Path(record.config["checkpoint"]).name, {**trained, "seed": 0}, training.digests]
    config.pop("seed", None)
    return json.dumps([*parts, digests], sort_keys=True)


def _training_of(record: Record) -> Record | None:
    """The record of the run that trained the checkpoint of an evaluation, if both are still there."""
    checkpoint = Path(record.config["checkpoint"])
    with suppress(InputError):
        if digest_of("checkpoint", str(checkpoint)) == record.digests.get("checkpoint"):
            return read_record(checkpoint.parents[1])
    return None


def _by_seed(group: Sequence[Finished]) -> dict[int, Finished]:
    return {run.record.seed: run for run in sorted(group, key=lambda run: run.record.seed)}


def _pair_seeds(arms: Sequence[Arm]) -> list[str]:
    """Give the runs of all arms common seeds; a sentence for each arm with runs that have no partner.

    Raises:
        InputError: If an arm has no seed in common with the baseline.
    """
    seeds = {seed for arm in arms for seed in arm.runs if len(arm.runs) > 1}
    for arm in arms:
        (run, *others) = arm.runs.values()
        if not others and (not seeds or run.record.kind == "knn"):  # KNN gives the same result for each seed
            arm.runs = dict.fromkeys(sorted(seeds) or [0], run)
    remarks = []
    for arm in arms[1:]:
        own, baseline = arm.runs.keys(), arms[0].runs.keys()
        if not own & baseline:
            raise InputError(
                f"{arm.label}: has the seeds {_listed(own)}, the baseline {_listed(baseline)}; expected a common seed."
            )
        if own ^ baseline:
            remarks.append(f"{arm.label}: seeds without a partner are not compared: {_listed(own ^ baseline)}.")
    return remarks


def _listed(seeds: Any) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _require_same_labels(arms: Sequence[Arm]) -> None:
    """Refuse runs whose images have equal names and other labels; ``gather`` compares the names."""
    labels = [read_predictions(next(iter(arm.runs.values())).path / "predictions.npz")[:2] for arm in arms]
    for arm, (ids, own) in zip(arms[1:], labels[1:], strict=True):
        if np.array_equal(ids, labels[0][0]) and not np.array_equal(own, labels[0][1]):
            raise InputError(
                f"{arm.label}: its images have other labels than the baseline's; compare runs on one data set."
            )


def _settings(records: Sequence[Record]) -> list[str]:
    """Kind and settings of the baseline, as far as the arms differ in them, and of each other arm what is different."""
    values = differences([record.kind for record in records], [record.config for record in records])
    if len({record.kind for record in records}) > 1:
        values = [{"kind": record.kind, **each} for record, each in zip(records, values, strict=True)]
    if not any(values):
        key = "precision" if len({record.precision for record in records}) > 1 else "seed"
        values = [{key: str(getattr(record, key))} for record in records]
    others = [{key: value for key, value in each.items() if value != values[0].get(key)} for each in values[1:]]
    return [" ".join(f"{key}={value}" for key, value in each.items()) for each in [values[0], *others]]


def _mixtures(runs: Sequence[Finished]) -> list[str]:
    """What could explain a difference, other than the settings."""
    sentences = []
    networks = [run.record for run in runs if run.record.kind == "cnn"]
    hardware = dict.fromkeys(f"{r.device}, {r.precision}, {r.threads} threads" for r in networks)
    if len(hardware) > 1:
        sentences.append(f"The runs come from unlike hardware or precision: {'; '.join(hardware)}.")
    data = {(run.record.kind, run.record.data["fingerprint"]) for run in runs}
    if len(data) > len({kind for kind, _ in data}):
        sentences.append(
            "The data fingerprints differ: images of equal names, but other pixels or other training images."
        )
    return sentences
