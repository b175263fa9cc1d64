"""Experiments as ``conf/experiment`` declares them, and the configurations of their arms."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from deepfake_cls.commands import command
from deepfake_cls.config import conf_dir
from deepfake_cls.overrides import key_of, to_hydra, varied_keys
from deepfake_cls.report.collect import Finished
from deepfake_cls.stats.verdict import Claim

SHARED_KEYS = ("plugins", "data", "trainer")  # overrides of train that mean the same for every command


@dataclass
class Arm:
    """One arm of an experiment.

    Attributes:
        label: Name in tables.
        overrides: The overrides that distinguish the arm.
        reported: The paper's accuracy, a fraction; None if the paper has none.
        reported_train: The paper's training accuracy.
        remark: The paper's remark.
        runs: Finished runs by seed.
        failed: Errors by seed.
    """

    label: str
    overrides: tuple[str, ...] = ()
    reported: float | None = None
    reported_train: float | None = None
    remark: str = ""
    runs: dict[int, Finished] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


@dataclass
class Experiment:
    """A declared experiment with the runs of its arms.

    Attributes:
        name: File name in ``conf/experiment``, without its suffix.
        table: Number of its table.
        title: Heading.
        entry: ``train``, ``knn`` or ``statistics``.
        baseline: Index of the baseline among the arms.
        arms: In the order of the declaration.
        by_k: The paper's accuracy for each k.
        note: A sentence below the table.
        grid: Whether its table has a row for each value of the first key that it varies, and a column for each value of
            the second. Such a table is optional.
        optional: Whether its table is shown only if it has runs, or if it is asked for by its number.
        varied: The keys that it varies, see :func:`deepfake_cls.overrides.varied_keys`.
    """

    name: str
    table: int
    title: str
    entry: str
    baseline: int
    arms: list[Arm]
    by_k: dict[int, float] = field(default_factory=dict)
    note: str = ""
    grid: bool = False
    optional: bool = False
    varied: set[str] = field(default_factory=set)

    def claim(self, index: int) -> Claim | None:
        """The paper's difference between an arm and the baseline; None for the baseline, and if a number is missing."""
        reported, baseline = self.arms[index].reported, self.arms[self.baseline].reported
        if index == self.baseline or reported is None or baseline is None:
            return None
        return Claim(*[round(reported - baseline, 6)] * 2)  # without the rounding noise of binary fractions

    def command(self, overrides: Sequence[str]) -> str:
        """The command that makes the runs of all arms; all share these overrides of ``train``."""
        return command(self.entry, [f"experiment={self.name}", *self.shared(overrides)])

    def shared(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """Those of these overrides of ``train`` that all arms share: without the keys that the experiment varies."""
        return tuple(text for text in overrides_for(self.entry, overrides) if key_of(text) not in self.varied)


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Make ``compose`` usable inside and outside an entry point."""
    if GlobalHydra.instance().is_initialized():  # inside an entry point
        yield
    else:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield


def read_experiments(base: DictConfig) -> dict[str, Experiment]:
    """Read all declarations in ``conf/experiment``.

    The arms of an experiment are the product of its sweeper's parameters without the seed; arms that are not declared
    are named by their overrides. A declaration may refer to ``base``, the configuration of the main arm, as in
    ``${sweep.lr}``.
    """
    return {file.stem: _read(file, base) for file in sorted((conf_dir() / "experiment").glob("*.yaml"))}


def _read(file: Path, base: DictConfig) -> Experiment:
    declaration = OmegaConf.load(file)
    params = declaration.hydra.sweeper.params
    merged: Any = OmegaConf.merge(base, {"experiment": declaration.experiment, "params": params})
    values: Any = OmegaConf.to_container(merged.experiment, resolve=True)
    swept = []
    for key, value in merged.params.items():
        if key != "seed":
            override = OverridesParser.create().parse_overrides([f"{key}={value}"])[0]
            assert override.is_sweep_override()
            swept.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    products = [*itertools.product(*swept)]
    declared = values.pop("arms", None) or [{"label": " ".join(overrides)} for overrides in products]
    arms = [Arm(overrides=overrides, **arm) for overrides, arm in zip(products, declared, strict=True)]
    return Experiment(name=file.stem, arms=arms, varied=varied_keys(file), **values)


def overrides_for(entry: str, overrides: Sequence[str]) -> list[str]:
    """Select the overrides of ``train`` that another entry point has too."""
    if entry == "train":
        return [*overrides]
    return [override for override in overrides if key_of(override).split(".")[0] in SHARED_KEYS]


def compose_main(overrides: Sequence[str]) -> tuple[DictConfig, str]:
    """Compose the configuration of the main arm; the second value is the name of its scale."""
    composed = compose("train", to_hydra(overrides), return_hydra_config=True)
    return _without_hydra(composed), str(composed.hydra.runtime.choices.scale)


def compose_base(entry: str, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of an entry point from those overrides of ``train`` that it has too."""
    return _without_hydra(compose(entry, to_hydra(overrides_for(entry, overrides))))


def compose_arm(entry: str, base: DictConfig, shared: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of an arm.

    Hydra needs 0.1 s for each composition. So an arm that only sets values is a copy of ``base``, the configuration
    from the ``shared`` overrides of all arms, with these values.
    """
    parsed = OverridesParser.create().parse_overrides([*overrides])
    if any(isinstance(OmegaConf.select(base, o.key_or_group), DictConfig | None) for o in parsed):
        return _without_hydra(compose(entry, to_hydra([*overrides_for(entry, shared), *overrides])))
    arm = copy.deepcopy(base)
    for override in parsed:
        OmegaConf.update(arm, override.key_or_group, override.value())
    return arm


def _without_hydra(composed: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
