"""The tables of the report: each a function of a study alone, with our values beside the paper's.

A table is registered under its number (``@table(7)``). A declared experiment has tables under the number in its
declaration and needs no function of its own.
"""

from __future__ import annotations

from deepfake_cls.report import table
from deepfake_cls.report.render import Table
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables import methods, neighbours, network, recall, tta  # noqa: F401 (they register tables)
from deepfake_cls.report.tables.sweeps import sweep_tables


def numbers(study: Study) -> list[int]:
    """Numbers of all tables, in order: of those that are registered, and of the declared experiments."""
    return sorted({*table, *(experiment.table for experiment in study.experiments.values())})


def tables_of(study: Study, number: int) -> list[Table]:
    """The tables with a number: the registered one, then those of the declared experiments.

    Args:
        study: Experiments with their runs.
        number: One of :func:`numbers`.
    """
    made = table[number](study) if number in table else []
    return [*(made if isinstance(made, list) else [made]), *sweep_tables(study, number)]


def all_tables(study: Study) -> list[Table]:
    """All tables, in the order of their numbers."""
    return [one for number in numbers(study) for one in tables_of(study, number)]
