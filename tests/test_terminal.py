"""Tables in a terminal: what is folded, omitted or shortened if it does not fit."""

from __future__ import annotations

import re

import pytest

from deepfake_cls.terminal import print_table

COLUMNS = ["id", "settings", "accuracy", "age", "size"]
ROW = ["cc12", "scale=tiny lr=0.001 augment.cutmix=null data.size=[64,64]", "93.1 %", "12 min", "340 MB"]


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, rows: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(COLUMNS, [ROW] * rows, whole=["id", "age", "size"], omit=["size", "age"])
    return re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize(("width", "columns"), [(40, COLUMNS[:3]), (52, COLUMNS[:4]), (80, COLUMNS), (160, COLUMNS)])
def test_a_narrow_table_omits_columns_and_breaks_no_word(
    width: int, columns: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, width, 2)
    assert lines[0].split() == columns
    assert all(len(line) <= width for line in lines)
    assert [line.split() for line in lines if "settings" in line] == [columns]
    words = " ".join(lines).split()
    assert all(words.count(setting) == 2 for setting in ROW[1].split())


def test_a_path_is_cut_at_its_start(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(
        ["data", "split"], [["folder /disk/me/a long name/of/my/photos", "train"]], whole=["split"], paths="data"
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "photos" in line]
    assert line.split("  ")[0].strip() == "…/me/a long name/of/my/photos"
    assert line.strip().endswith("train")
