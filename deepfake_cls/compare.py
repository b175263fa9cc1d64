"""Compare finished runs on the same images: ``python -m deepfake_cls.compare RUN RUN ...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config_runs import CompareConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from deepfake_cls.records import Record
    from deepfake_cls.report.evidence import Row
    from deepfake_cls.report.paired import Compared


def run(config: CompareConfig, sweep: bool) -> None:
    """Print the paired differences of runs to the first one, with 95 % intervals.

    Raises:
        InputError: With ``-m``, or if the runs cannot be found or compared.
    """
    if sweep:
        raise InputError(ONCE["compare"])
    from deepfake_cls.inventory import find, short_ids
    from deepfake_cls.report.collect import Finished
    from deepfake_cls.report.paired import compare

    found = find(config.folders, Path(config.runs))
    runs = [Finished(run.path, run.record, run.time) for run in found if run.record is not None]
    compared = compare(runs, short_ids(found) if found else [])
    print_comparison(compared)
    print(f"next: {report_command(config, runs[0].record)}", flush=True)


def print_comparison(compared: Compared) -> None:
    """Print a row for each arm, and a sentence for each comparison."""
    from deepfake_cls.report.render import images_text, interval_text
    from deepfake_cls.terminal import print_table

    rows, sentences = [], []
    for row, settings in zip(compared.evidence.rows, compared.settings, strict=True):
        cells = [row.arm.label, settings, accuracy(row)]
        if row.comparison is None:
            cells += ["baseline", "", ""]
        else:
            difference, p = row.comparison.difference, row.comparison.p_adjusted
            cells += [interval_text(difference), f"{p:.3f}" if p >= 0.001 else "< 0.001", row.comparison.verdict.word]
            sentences.append(f"{row.arm.label}: {row.comparison.verdict.sentence}.")
        rows.append(cells)
    first = next(row.comparison for row in compared.evidence.rows if row.comparison is not None)
    seeds = f" and {len(first.seeds)} seeds" if len(first.seeds) > 1 else ""
    print(f"Paired over {images_text(first.difference)}{seeds}; the first row is the baseline.")
    print("Differences are in points, with 95 % intervals.")
    columns = ["runs", "settings", "accuracy %", "difference", "p (Holm)", "verdict"]
    print_table(columns, rows, whole=["runs", "p (Holm)", "verdict"])
    print(*sentences, *compared.remarks, sep="\n")


def accuracy(row: Row) -> str:
    """``88.1 ± 0.3 (n = 3)`` over seeds, or ``88.2 (86.3 to 89.9)`` over the images of one run."""
    from deepfake_cls.report.render import mean_text
    from deepfake_cls.stats.intervals import summarise
    from deepfake_cls.summary import correct_of, interval_of

    records = [*{run.path: run.record for run in row.arm.runs.values()}.values()]
    counts = [correct_of(record) for record in records]
    if len(counts) > 1:
        return mean_text(summarise([correct / count for correct, count in counts]))
    ((correct, count),) = counts
    low, high = interval_of(records[0], correct)
    return f"{100 * correct / count:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def report_command(config: CompareConfig, baseline: Record) -> str:
    """The command that makes the page, with the data of the baseline, and the settings if it is a network."""
    from deepfake_cls.commands import command, overrides_of, shared_overrides
    from deepfake_cls.notation import override

    arguments = [] if config.runs == "runs" else [override("runs", config.runs)]
    own = {**baseline.config, "plugins": config.plugins}
    # report has the keys of train
    others = overrides_of("report", own) if baseline.kind == "cnn" else shared_overrides("report", own)
    return command("report", [*arguments, *others])


if __name__ == "__main__":
    main("compare", CompareConfig, run, positional="folders")
