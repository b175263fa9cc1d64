"""The notebooks run from top to bottom on small data, and are committed without outputs."""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

from deepfake_cls.config import TrainConfig
from deepfake_cls.data.images import describe, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.records import Record, write_predictions, write_record
from deepfake_cls.stats.metrics import score
from tests.conftest import ROOT, SMALL_DATA, SMALL_NET, configure

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SYNTHETIC = (
    "from deepfake_cls.config import SyntheticConfig\n"
    "DATA = SyntheticConfig(train_size=20, validation_size=10, test_size=0, workers=1)\n"
    "K = 2"
)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """One kernel for all notebooks: this interpreter and checkout, without the user's Jupyter settings."""
    settings = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            environment.setenv(name, str(settings / name))
        environment.setenv("JUPYTER_PATH", "")
        environment.setenv("PYTHONPATH", str(ROOT))
        environment.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(settings))
        yield manager
        manager.shutdown_kernel(now=True)


def read(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)  # type: ignore[no-untyped-call]


def execute(kernel: KernelManager, book: Any, parameters: str, folder: Path) -> dict[str, list[Any]]:
    """Run a notebook in ``folder`` with other parameters; return the outputs by cell id."""
    (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = parameters
    start = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}", id="start")  # type: ignore[no-untyped-call]
    book.cells.insert(0, start)
    NotebookClient(book, km=kernel, timeout=120).execute()
    return {cell.id: cell.outputs for cell in book.cells if cell.cell_type == "code"}


def figures(outputs: list[Any]) -> list[np.ndarray[Any, Any]]:
    """The figures among the outputs of a cell."""
    pngs = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in pngs]


def write_runs(folder: Path, overrides: list[str], learning_rates: list[str]) -> None:
    """Write finished runs of two seeds for each learning rate, in the format of training, without training."""
    rng = np.random.default_rng(0)
    for rate in learning_rates:
        for seed in range(2):
            config = configure("train", TrainConfig, *overrides, f"lr={rate}", f"seed={seed}")
            manifest = read_manifest(config.data)
            split = open_images(manifest, "validation", config.data, progress=False)
            probs = rng.dirichlet(np.ones(5), len(split)).astype(np.float32)
            scores = score(split.labels, probs)
            accuracy = scores.metrics["acc"]
            history = [
                {"epoch": epoch, "train_loss": 1.5, "val_loss": 1.6, "val_acc": accuracy, "lr": 1e-3}
                for epoch in range(config.epochs)
            ]
            record = Record(
                "cnn", "ok", f"{rate}-{seed}", asdict(config), seed=seed, history=history,
                data=describe(manifest, {"validation": split}) | {"sizes": {"train": 40, "validation": len(split)}},
                metrics={"val_acc": accuracy, "train_acc": 0.9}, recall=scores.recall, confusion=scores.confusion,
                seconds={"fit": 1.0},
            )  # fmt: skip
            path = folder / "cnn" / record.identity
            write_predictions(path / "predictions.npz", split.ids, split.labels, probs)
            write_record(path, record)


def test_there_are_two_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01_data.ipynb", "02_results.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    book = read(path.name)
    nbformat.validate(book)
    assert book.nbformat == 4
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert len({cell.id for cell in book.cells}) == len(book.cells)
    for before, cell in zip([None, *book.cells], book.cells, strict=False):
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert before is not None
            assert before.cell_type == "markdown"  # describes the code cell
            assert not {"def ", "class "} & {
                word + " " for word in cell.source.split()
            }  # functions belong into the package, where they are tested


@pytest.mark.parametrize("layout", ["synthetic", pytest.param("unibuc", marks=pytest.mark.slow)])
def test_data(layout: str, tmp_path: Path, unibuc_like: Path, kernel: KernelManager) -> None:
    parameters = SYNTHETIC
    if layout == "unibuc":  # the first cell names this layout
        parameters = (
            f"from deepfake_cls.config import UnibucConfig\nDATA = UnibucConfig(root={str(unibuc_like)!r})\nK = 2"
        )
    outputs = execute(kernel, read("01_data.ipynb"), parameters, tmp_path)
    assert repr(layout) in outputs["open"][0]["data"]["text/plain"]
    for cell in ("classes", "traces", "raw", "spectrum"):
        (figure,) = figures(outputs[cell])
        assert figure.std() > 10  # not blank


def test_results(tmp_path: Path, kernel: KernelManager) -> None:
    """The notebook runs in a folder below that of the runs, and shows all of them, whatever the overrides select."""
    mine = [*SMALL_NET, *SMALL_DATA]
    write_runs(tmp_path / "runs", mine, ["1.3e-3", "4e-3"])
    write_runs(tmp_path / "runs", [*mine, "data.image_size=32"], ["5e-3"])
    (tmp_path / "notebooks").mkdir()
    outputs = execute(kernel, read("02_results.ipynb"), f"RUNS, OVERRIDES = 'runs', {mine}", tmp_path / "notebooks")
    description = "5 classes, 40 train, 20 validation, {0}×{0}, fingerprint "
    lines = outputs["records"][0]["text"].splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"4 runs on synthetic ({description.format(100)}")
    assert lines[1].startswith(f"2 runs on synthetic ({description.format(32)}")
    first, second = (output["data"]["text/markdown"] for output in outputs["own"])
    settings = "| CNN | scale=tiny{} epochs=2 batch_size=16 | "
    assert all(settings.format(lr) in first for lr in ("", " lr=0.0013"))
    assert settings.format(" lr=0.005") in second
    assert (first + second).count("(n = 2)") == 3
    assert len(figures(outputs["own-figures"])) == 2
    assert len(figures(outputs["curve"])) == 1
    assert len(figures(outputs["mistakes"])) == 1
    tables = outputs["tables"][0]["data"]["text/markdown"]
    assert "### Table 4: Learning rate" in tables
    assert "### Table 5" not in tables  # one arm has nothing to compare with
    assert (
        "for table1_knn, table1_statistics, table5_dropout, table6_alpha, table6_controls, table10_components. To run"
        " the first" in tables
    )
    assert len(figures(outputs["figures"])) == 2 + 3  # of table 4; recall, confusion matrix and mistakes of table 8


def test_the_settings_of_the_results_are_those_of_make_table4() -> None:
    (cell,) = [cell for cell in read("02_results.ipynb").cells if "parameters" in cell.metadata.get("tags", [])]
    variables: dict[str, Any] = {}
    exec(cell.source, variables)
    commands = subprocess.run(["make", "-n", "table4", "DATA="], cwd=ROOT, capture_output=True, text=True, check=True)
    report = next(line for line in commands.stdout.splitlines() if "deepfake_cls.report" in line)
    arguments = report.partition("deepfake_cls.report ")[2].split()
    overrides = [argument for argument in arguments[: arguments.index("output=reports/tables")] if "=" in argument]
    assert variables["OVERRIDES"] == overrides


def test_without_runs_the_error_is_one_line_with_the_next_command(tmp_path: Path, kernel: KernelManager) -> None:
    book = read("02_results.ipynb")
    with pytest.raises(CellExecutionError):
        execute(kernel, book, "RUNS, OVERRIDES = 'runs', []", tmp_path)
    (cell,) = [cell for cell in book.cells if cell.id == "records"]
    (line,) = cell.outputs[-1]["traceback"]
    assert line == "error: runs=runs: no finished run there. Start with: deepfake-cls knn"
