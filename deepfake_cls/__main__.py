"""``deepfake-cls COMMAND``, the same as ``python -m deepfake_cls.COMMAND``."""

from __future__ import annotations

import runpy
import sys

from deepfake_cls import __version__
from deepfake_cls.errors import closed_pipe_allowed

COMMANDS = {
    "audit": "find what would mislead a classifier in a data set",
    "train": "train a network; with -m a sweep",
    "knn": "score exact k-nearest neighbours",
    "statistics": "classify image statistics",
    "evaluate": "score a trained model on a labelled split",
    "predict": "label images with a trained model",
    "report": "make tables, figures and a page from finished runs",
    "compare": "compare finished runs on the same images",
    "runs": "list runs; delete failed or unfinished ones, or checkpoints",
    "cache": "list the cached images; delete unused ones",
}
USAGE = "usage: deepfake-cls COMMAND [KEY=VALUE ...]    deepfake-cls COMMAND --help    deepfake-cls --version"


def main() -> None:
    """Run the command that the first argument names."""
    with closed_pipe_allowed():
        _run(*(sys.argv[1:] or ["--help"]))


def _run(command: str, *arguments: str) -> None:
    if command in ("-h", "--help"):
        print(USAGE, "", *(f"  {name:12}{text}" for name, text in COMMANDS.items()), sep="\n")
    elif command == "--version":
        print(f"deepfake-cls {__version__}")
    elif command in COMMANDS:
        sys.argv = [f"deepfake-cls {command}", *arguments]
        runpy.run_module(f"deepfake_cls.{command}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: {command}: unknown command; expected one of {', '.join(COMMANDS)}.\n{USAGE}")


if __name__ == "__main__":
    main()
