"""Write files completely or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from deepfake_cls.errors import writing

TEMPORARY = ".tmp"  # the end of the name of a file that is not complete


def write_atomically(path: Path, content: bytes | memoryview, instead: str = "choose another folder") -> None:
    """Write a file completely or not at all; create its folder if it is missing.

    Args:
        path: The file. A link stays, and its target is written. A pipe or a device is written directly.
        content: The new content.
        instead: What to do if the file cannot be written, for the message.

    Raises:
        OutputError: If it cannot be written; the file is then as it was before.
    """
    is_stdout = _is_standard_output(path)
    with writing("standard output" if is_stdout else path, instead):
        if is_stdout:
            sys.stdout.flush()  # what was printed before comes first
            with os.fdopen(os.dup(1), "wb") as stdout:
                stdout.write(content)
        elif path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(path.resolve(), content)


def require_writable(path: Path, instead: str = "choose another folder") -> None:
    """Refuse an output that cannot be written, before the work that it needs; create its folder if it is missing.

    Raises:
        OutputError: If the folder cannot be created, or no file can be created in it.
    """
    with writing(path, instead):
        if not path.exists() or path.is_file():  # a pipe or a device is written directly
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.resolve().parent):
                pass


def _is_standard_output(path: Path) -> bool:
    """Whether a path, such as /dev/stdout, is the file or the pipe that standard output is."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # the path does not exist, or standard output is closed
        return False


def _replace(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; a result gets the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # noqa: PTH101
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
