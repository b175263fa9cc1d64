"""Records in, one page out: ``python -m deepfake_cls.report``."""

from __future__ import annotations

from pathlib import Path

from deepfake_cls.cli import main
from deepfake_cls.config import ReportConfig
from deepfake_cls.errors import InputError


def run(config: ReportConfig, sweep: bool) -> None:
    """Collect the records under ``runs`` and write ``index.html`` and ``runs.csv``.

    Raises:
        InputError: If there is no finished run.
    """
    if sweep:
        raise InputError("report reads all runs at once; call it without -m.")
    from deepfake_cls.results.collect import collect, newest, write_csv
    from deepfake_cls.results.page import write_page

    records = collect(Path(config.runs))
    chosen = newest(records)
    output = Path(config.output)
    write_csv(output / "runs.csv", records)
    page = write_page(output / "index.html", records, chosen)
    print(f"{page}: {len(records)} runs; the table as data is {output / 'runs.csv'}.")


if __name__ == "__main__":
    main("report", ReportConfig, run)
