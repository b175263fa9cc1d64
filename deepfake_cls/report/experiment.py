"""A declared experiment, its arms, and the runs that were found for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepfake_cls.report.collect import Finished


@dataclass
class Arm:
    """One arm of an experiment.

    Attributes:
        label: As tables name it.
        words: What sets it apart, as on the command line.
        reported: The paper's accuracy, a fraction; None where it gives none.
        reported_train: The paper's training accuracy.
        remark: The paper's remark.
        runs: Finished runs by seed.
        failed: Errors by seed.
    """

    label: str
    words: tuple[str, ...] = ()
    reported: float | None = None
    reported_train: float | None = None
    remark: str = ""
    runs: dict[int, Finished] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


@dataclass
class Experiment:
    """A declared experiment and the runs that were found for it.

    Attributes:
        name: Its file in ``conf/experiment``.
        table: Number of the table.
        title: Its heading.
        entry: ``train`` or ``knn``.
        baseline: Index of the arm that the others are compared with.
        arms: In the order of the declaration.
        by_k: The paper's accuracy for each k.
    """

    name: str
    table: int
    title: str
    entry: str
    baseline: int
    arms: list[Arm]
    by_k: dict[int, float] = field(default_factory=dict)
