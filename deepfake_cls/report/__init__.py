"""From records to tables, figures and one page.

``@table(number)`` registers a function from a study to one or several tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepfake_cls.registry import Registry

if TYPE_CHECKING:
    from deepfake_cls.report.render import Table
    from deepfake_cls.report.study import Study

table: Registry[int, Callable[[Study], Table | list[Table]]] = Registry("table")

__all__ = ["table"]
