"""The tables of the paper, each a function of a study: our values next to the paper's.

``@table(7)`` registers a table. A declared experiment gets its tables from its declaration and needs no function.
"""

from __future__ import annotations

from deepfake_cls.report import table
from deepfake_cls.report.render import Table
from deepfake_cls.report.study import Study
from deepfake_cls.report.tables import knn, main_arm, network  # noqa: F401 (they register tables)
from deepfake_cls.report.tables.claims import claims_tables
from deepfake_cls.report.tables.sweeps import sweep_tables


def numbers(study: Study) -> list[int]:
    """Numbers of all tables in order: of registered tables and of declared experiments."""
    return sorted({*table, *(experiment.table for experiment in study.experiments.values())})


def tables_of(study: Study, number: int) -> list[Table]:
    """Make the tables with a number: the registered ones, then those of declared experiments."""
    registered = table[number](study) if number in table else []
    return [*(registered if isinstance(registered, list) else [registered]), *sweep_tables(study, number)]


def all_tables(study: Study) -> list[Table]:
    """Make the tables about the claims of the paper, then all that have runs to show, in the order of their numbers."""
    return claims_tables(study) + [
        each for number in numbers(study) for each in tables_of(study, number) if each.filled
    ]
