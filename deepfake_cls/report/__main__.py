"""Make tables, figures and one page from runs: ``python -m deepfake_cls.report``."""

from __future__ import annotations

from pathlib import Path

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config import ReportConfig
from deepfake_cls.errors import InputError
from deepfake_cls.overrides import task_overrides

REPORT_KEYS = ("runs", "output", "table", "require")  # all other overrides select the runs of the tables
TABLES_WITHOUT_RUNS = (2, 3)  # the network and the settings


def run(config: ReportConfig, sweep: bool) -> None:
    """Read the records under ``runs``; write the page, and the tables as Markdown, LaTeX and CSV.

    Raises:
        InputError: If the table is unknown, no run has finished, or runs that ``require`` demands are missing.
    """
    if sweep:
        raise InputError(ONCE["report"])
    from deepfake_cls.files import write_atomically
    from deepfake_cls.notation import plural
    from deepfake_cls.report.collect import collect, run_rows
    from deepfake_cls.report.datasets import data_sets
    from deepfake_cls.report.datasets import notes as notes_of
    from deepfake_cls.report.page import write_page
    from deepfake_cls.report.render import csv_text, latex, markdown, table_rows
    from deepfake_cls.report.study import assign, declared, without_repeats
    from deepfake_cls.report.tables import all_tables, numbers, tables_of

    study = declared([o for o in task_overrides() if o.split("=")[0] not in REPORT_KEYS])
    if config.table is not None and config.table not in (available := numbers(study)):
        raise InputError(
            f"table={config.table}: expected one of {', '.join(map(str, available))}, or null for all."
            " A table of your own needs plugins=[MODULE]."
        )
    runs = [] if config.table in TABLES_WITHOUT_RUNS else without_repeats(collect(Path(config.runs)))
    assign(study, runs)
    missing = [] if config.require is None else study.missing(config.require, config.table)
    if missing:
        raise InputError(f"require={config.require}: {len(missing)} runs are missing, first {missing[0]}.")
    sets = data_sets(runs, study) if runs else []
    tables = all_tables(study) if config.table is None else tables_of(study, config.table)
    output, notes = Path(config.output), [] if config.table is not None else notes_of(sets, study, config.runs)
    document = "\n".join([markdown(tables), *notes, ""] if notes else [markdown(tables)])
    for name, text in (("md", document), ("tex", latex(tables)), ("csv", csv_text(table_rows(tables)))):
        write_atomically(output / f"tables.{name}", text.encode())
    if config.table is not None:
        print(markdown(tables))
    if runs:
        write_atomically(output / "runs.csv", csv_text(run_rows(runs)).encode())
        page = write_page(output / "index.html", runs, sets, study, tables, notes)
        print(f"{page}: {plural(len(runs), 'run')}; also in {output}: tables.md, tables.tex, tables.csv, runs.csv")
        for note in notes:
            print(note)


if __name__ == "__main__":
    main("report", ReportConfig, run)
