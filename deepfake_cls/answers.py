"""The answers of ``predict``: as a CSV file, as a table, and in a summary."""

from __future__ import annotations

import csv
import io
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.escaping import csv_cell, printable
from deepfake_cls.files import require_writable, write_atomically

HEADER = ("image_id", "label")
SYNTHETIC = "p_synthetic"
_FIRST = ",".join(HEADER).encode()
STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_LISTED_CLASSES = 50
_INSTEAD = "choose another output=FILE"


@dataclass(frozen=True)
class Answers:
    """Labels of images, and the reasons why others have none.

    Attributes:
        ids: One for each image, in order.
        rows: int64 (K,), index in ``ids`` of each image that has an answer.
        probs: float32 (K, C).
        reasons: Why an image has no answer, by its index in ``ids``.
        classes: The C class names.
        names: Whether labels are class names; otherwise they are numbers.
        real: Index of the class of images that no generator made; None if there is none.
    """

    ids: Sequence[str]
    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    reasons: dict[int, str]
    classes: Sequence[str]
    names: bool
    real: int | None = None

    def synthetic(self, probs: NDArray[np.float32], digits: int) -> list[str]:
        """The probability (C,) that an image is synthetic, 1 − p(real), as a cell; no cell without ``real``."""
        return [] if self.real is None else [f"{1 - probs[self.real]:.{digits}f}"]

    def label(self, index: int) -> str:
        """The label of a class, as it is written."""
        return self.classes[index] if self.names else str(index)


def check_output(output: str, tables: Sequence[Path] = ()) -> None:
    """Refuse to replace a file that predict has not written, and create the folder of a new one.

    Args:
        output: The file, or one of ``STDOUT``.
        tables: Files of the data set that have the header of predict's files.

    Raises:
        InputError: If ``output`` is a folder, a table of the data set, or exists and is no CSV file of predict.
        OutputError: If the file cannot be written.
    """
    path = Path(output)
    if output in STDOUT:
        return
    if path.is_dir():
        raise InputError(f"output={output}: is a folder; give the name of a CSV file.")
    require_writable(path, _INSTEAD)
    if not path.exists() or stat.S_ISFIFO(mode := path.stat().st_mode) or stat.S_ISCHR(mode):
        return  # a pipe or /dev/null loses nothing
    if any(table.exists() and table.samefile(path) for table in tables):
        raise InputError(f"output={output}: is a table of the data set; give another name.")
    with path.open("rb") as file:
        start = file.read(len(_FIRST) + 1)
    if start and (start[:-1] != _FIRST or start[-1:] not in b",\r\n"):
        raise InputError(f"output={output}: exists and is not a CSV that predict wrote; give another name.")


def write_csv(answers: Answers, output: str, *, probabilities: bool, name_column: bool, error_column: bool) -> None:
    """Write a row for each image: id, label, class name, error, ``p_synthetic``, and the probability of each class.

    File names and class names are escaped by :func:`deepfake_cls.escaping.csv_cell`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    synthetic = [] if answers.real is None else [SYNTHETIC]
    columns = [f"p_{name}" for name in answers.classes] if probabilities else []
    optional = [*(["name"] if name_column else []), *(["error"] if error_column else [])]
    writer.writerow([*HEADER, *optional, *synthetic, *map(csv_cell, columns)])
    probs_of = dict(zip(answers.rows.tolist(), answers.probs, strict=True))
    for row, image_id in enumerate(answers.ids):
        probs = probs_of.get(row)
        index = None if probs is None else int(probs.argmax())
        cells = [image_id, "" if index is None else answers.label(index)]
        cells += ["" if index is None else answers.classes[index]] if name_column else []
        cells += [answers.reasons.get(row, "")] if error_column else []
        shares = [""] * len([*synthetic, *columns])
        if probs is not None:
            shares = [*answers.synthetic(probs, 6), *(f"{p:.6f}" for p in probs[: len(columns)])]
        writer.writerow([*map(csv_cell, cells), *shares])
    path = Path("/dev/stdout" if output in STDOUT else output)
    write_atomically(path, text.getvalue().encode(), _INSTEAD)


def table_text(answers: Answers, *, probabilities: bool, width: int | None = None) -> str:
    """A table of the answers and their probabilities; names are folded at ``width``, never cut off.

    Args:
        answers: The answers.
        probabilities: Add a column for each class; if these are wider than ``width``, a list below the table.
        width: Number of columns of the terminal; None: each image is one line.
    """
    synthetic = [] if answers.real is None else [SYNTHETIC]
    columns = [f"p_{printable(name)}" for name in answers.classes] if probabilities else []
    least = 70 + sum(max(len(name), 5) + 3 for name in [*synthetic, *columns])
    if width is not None and columns and least > width:
        return _render(answers, synthetic, width, [printable(name) for name in answers.classes])
    return _render(answers, [*synthetic, *columns], width or 100_000, [])


def _render(answers: Answers, columns: Sequence[str], width: int, below: Sequence[str]) -> str:
    """A table with the probabilities in ``columns``, or with the class names in ``below`` in a list below it.

    ``columns`` begin with that of ``Answers.synthetic``, if it has one.
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    text = io.StringIO()
    # In a narrower terminal lines wrap.
    console = Console(file=text, width=max(width, 70), markup=False, emoji=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("file", "answer", "probability", "next best", "probability", *columns):
        justify: Any = "right" if name == "probability" else "left"
        table.add_column(name, overflow="fold", min_width=min(len(name), 12), justify=justify)
    probs_of = dict(zip(answers.rows.tolist(), answers.probs, strict=True))
    for row, image_id in enumerate(answers.ids):
        probs = probs_of.get(row)
        cells = ["–"] * (4 + len(columns))
        if probs is not None:
            best, second = np.argsort(-probs, kind="stable")[:2].tolist()
            cells = [answers.label(best), f"{probs[best]:.3f}", answers.label(second), f"{probs[second]:.3f}"]
            shares = [*answers.synthetic(probs, 3), *(f"{p:.3f}" for p in probs)]
            cells += shares[: len(columns)]
        table.add_row(*map(printable, [image_id, *cells]))
    console.print(table)
    if below:
        console.print("Probabilities:")
    for row, probs in probs_of.items() if below else ():
        listed = "  ".join(f"{name}\xa0{p:.3f}" for name, p in zip(below, probs, strict=True))
        console.print(printable(answers.ids[row]))
        console.print(Padding(listed, (0, 0, 0, 2)))
    lines = [line.rstrip().replace("\xa0", " ") for line in text.getvalue().splitlines()]
    return "\n".join(lines).strip("\n")


def summary(answers: Answers) -> Iterator[str]:
    """Lines: the number of images of each class, and the possible answers."""
    count = len(answers.rows)
    if len(answers.ids) > 1:
        yield f"Images with an answer: {count:,} of {len(answers.ids):,}"
        for index, images in sorted(Counter(answers.probs.argmax(axis=1).tolist()).items()):
            yield f"  {answers.label(index)}: {images:,} of {count:,} images ({100 * images / count:.0f} %)"
    if len(answers.ids) > 1 and count:
        yield f"Mean probability of these answers: {answers.probs.max(axis=1).mean():.3f} (not calibrated)."
    numbered = not answers.names and [*answers.classes] != [str(index) for index in range(len(answers.classes))]
    possible = [f"{index} = {name}" if numbered else name for index, name in enumerate(answers.classes)]
    others = len(possible) - _LISTED_CLASSES
    listed = ", ".join(possible[:_LISTED_CLASSES]) + (f" and {others:,} more" if others > 0 else "")
    yield f"Possible answers: {listed} (closed set: an image of any other origin gets one of these too)."
