"""Records in, tables, figures and one page out: ``python -m deepfake_cls.report``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from deepfake_cls.cli import main
from deepfake_cls.config import ReportConfig
from deepfake_cls.errors import InputError
from deepfake_cls.overrides import from_hydra

OWN = ("runs", "output", "table", "require")  # the other overrides say which runs belong to the tables
WITHOUT_RUNS = (2, 3)  # tables of the network and of the settings


def run(config: ReportConfig, sweep: bool) -> None:
    """Collect the records under ``runs``; write the page, and the tables as Markdown, LaTeX and CSV.

    Raises:
        InputError: If no table has the number, no run has finished, or runs that ``require`` asks for are missing.
    """
    if sweep:
        raise InputError("report reads all runs at once; call it without -m.")
    from deepfake_cls.records import write_atomically
    from deepfake_cls.report.collect import collect, newest, write_csv
    from deepfake_cls.report.page import write_page
    from deepfake_cls.report.render import as_csv, latex, markdown, plural
    from deepfake_cls.report.sections import sections
    from deepfake_cls.report.study import declared, fill, without_repeats
    from deepfake_cls.report.tables import all_tables, numbers, tables_of

    overrides = [word for word in from_hydra(HydraConfig.get().overrides.task) if word.split("=")[0] not in OWN]
    if config.table is not None and config.table not in (known := numbers(declared(overrides))):
        raise InputError(
            f"table={config.table}: expected one of {', '.join(map(str, known))}, or null for all."
            " A table of your own needs plugins=[MODULE]."
        )
    records = [] if config.table in WITHOUT_RUNS else without_repeats(collect(Path(config.runs)))
    study = fill(overrides, records)
    missing = [] if config.require is None else study.missing(config.require, config.table)
    if missing:
        raise InputError(f"require={config.require}: {len(missing)} runs are missing, first {missing[0]}.")
    tables = all_tables(study) if config.table is None else tables_of(study, config.table)
    output = Path(config.output)
    for name, text in (("md", markdown(tables)), ("tex", latex(tables)), ("csv", as_csv(tables))):
        write_atomically(output / f"tables.{name}", text.encode())
    if config.table is not None:
        print(markdown(tables))
    if records:
        write_csv(output / "runs.csv", records)
        more = sections(study, tables) if study.compares() else []
        page = write_page(output / "index.html", records, newest(records), more)
        print(f"{page}: {plural(len(records), 'run')}; tables.md, tables.tex, tables.csv and runs.csv lie beside it.")


if __name__ == "__main__":
    main("report", ReportConfig, run)
