"""``deepfake-cls compare RUN RUN ...``."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls import compare
from deepfake_cls.config_runs import CompareConfig
from deepfake_cls.errors import InputError
from deepfake_cls.records import digest_of, read_record, write_record
from deepfake_cls.stats.compare import difference
from deepfake_cls.stats.verdict import holm, judge
from tests.conftest import call
from tests.report.fake_runs import TINY, random_correct, write

RUNS = Path("runs")


def printed(capsys: pytest.CaptureFixture[str], *folders: Path | str) -> str:
    """The output of the command."""
    compare.run(CompareConfig(folders=[*map(str, folders)]), False)
    return capsys.readouterr().out


def arms(seeds: int = 3) -> dict[str, list[Path]]:
    """Three configurations with that many seeds."""
    shares = {"0.3": 0.80, "0": 0.81, "0.5": 0.60}
    return {
        dropout: [
            write(RUNS, [*TINY, f"dropout={dropout}"], seed, random_correct(share, seed)) for seed in range(seeds)
        ]
        for dropout, share in shares.items()
    }


def test_seeds_are_paired_and_the_numbers_are_those_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    runs = arms()
    output = printed(capsys, *(path for paths in runs.values() for path in reversed(paths)))
    correct = {share: np.stack([random_correct(share, seed) for seed in range(3)]) for share in (0.80, 0.81, 0.60)}
    found = [difference(correct[share], correct[0.80]) for share in (0.81, 0.60)]
    for one, p in zip(found, holm([one.p for one in found]), strict=True):
        verdict = judge(one, p)
        assert f" +2: {verdict.sentence}.\n" in output
        assert re.search(rf"\+2 .*{verdict.word}\s*\n", output)
    assert output.startswith("Paired over 200 images and 3 seeds; the first row is the baseline.\n")
    lines = [line for line in output.splitlines() if "n = 3" in line]
    assert [re.search(r"dropout=\S+", line)[0] for line in lines] == ["dropout=0.3", "dropout=0", "dropout=0.5"]  # type: ignore[index]
    assert "baseline" in lines[0]
    assert output.splitlines()[-1] == "next: deepfake-cls report scale=tiny"


def test_the_command_takes_folders_and_first_digits() -> None:
    runs = arms(1)
    done = call("deepfake_cls.compare", runs["0.3"][0].name[:5], str(runs["0.5"][0]))
    assert "the interval covers images only, since n = 1 seed" in done.stdout
    command = done.stdout.splitlines()[-1].removeprefix("next: ")
    call(*shlex.split(f"{command} --cfg job".replace("deepfake-cls", "deepfake_cls")))  # composes and makes no page
    assert call("deepfake_cls", "compare", *shlex.split("runs=nothing 00 11"), check=False).stderr == (
        "error: 00: expected the folder of a run, or the first digits of the id of a run below nothing;"
        " deepfake-cls runs lists them.\n"
    )


def test_knn_is_paired_with_each_seed_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    knn = write(RUNS, [], 0, random_correct(0.3, 7), kind="knn")
    network = [write(RUNS, TINY, seed, random_correct(0.9, seed)) for seed in range(3)]
    output = printed(capsys, knn, *network)
    assert "200 images and 3 seeds" in output
    assert "kind=knn" in output
    assert "better: +" in output


def test_two_seeds_of_one_configuration_are_compared_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output = printed(capsys, *(write(RUNS, TINY, seed, random_correct(0.8, seed)) for seed in range(2)))
    assert "seed=0" in output
    assert "seed=1" in output


def test_evaluations_of_the_seeds_of_a_network_are_one_arm(capsys: pytest.CaptureFixture[str]) -> None:
    evaluations = []
    for dropout, paths in arms(2).items():
        for path in paths:
            (path / "checkpoints").mkdir()
            checkpoint = path / "checkpoints" / "last.ckpt"
            checkpoint.write_text(f"{path}")
            record = read_record(path)
            config = {"checkpoint": str(checkpoint), "split": "test", "tta": "none", "data": record.config["data"]}
            digests = {"checkpoint": digest_of("checkpoint", str(checkpoint))}
            folder = RUNS / "evaluate" / f"{dropout} {record.seed}"
            shutil.copytree(path, folder)
            write_record(folder, replace(record, kind="evaluate", config=config, digests=digests))
            evaluations.append(folder)
    output = printed(capsys, *evaluations)
    assert output.startswith("Paired over 200 images and 2 seeds; the first row is the baseline.\n")
    assert output.count("n = 2") == 3


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    runs = arms()
    output = printed(capsys, *runs["0.3"], *runs["0.5"][1:])
    assert ": seeds without a partner are not compared: 0.\n" in output
    other = write(RUNS, [*TINY, "lr=1"], 0, hardware=("gpu", "bf16-mixed", 2), fingerprint="e" * 64)
    output = printed(capsys, runs["0.3"][0], other)
    assert "The runs come from unlike hardware or precision: some cpu, 32-true, 2 threads; gpu, bf16-mixed" in output
    assert "The data fingerprints differ" in output


def test_what_cannot_be_compared_is_refused() -> None:
    first, second = arms(1)["0.3"][0], write(RUNS, [*TINY, "lr=1"], 1)
    other_images = write(RUNS, [*TINY, "lr=2"], ids=[f"other {index}" for index in range(200)])
    failed = write(RUNS, [*TINY, "lr=3"], error="it diverged")
    unfinished = RUNS / "cnn" / "unfinished"
    unfinished.mkdir()
    (unfinished / "run.json").write_text(json.dumps({"identity": "ab" * 32}))
    shutil.copytree(unfinished, RUNS / "copy")
    shutil.copytree(first, RUNS / "mine")
    two_seeds = [write(RUNS, [*TINY, "lr=4"], seed) for seed in (5, 6)]
    for folders, message in (
        ([first], "expected two or more different runs"),
        ([first, first], "expected two or more different runs"),
        ([first, RUNS / "mine"], f"{first} and runs/mine are the same run; give one of them"),
        ([first, other_images], "seed 0 was scored on other images than the baseline"),
        ([first, failed], "is failed; expected a finished run"),
        ([first, unfinished], "is unfinished; expected a finished run"),
        ([first, "ab", "AB"], "2 runs have an id with these digits; give one of runs/cnn/unfinished, runs/copy"),
        ([first, first / "result.json"], "expected the folder of a run, or the first digits"),
        ([first, ""], "expected the folder of a run, or the first digits"),
        ([first, second, *two_seeds], "has the seeds 1, the baseline 0; expected a common seed"),
    ):
        with pytest.raises(InputError, match=message):
            compare.run(CompareConfig(folders=[*map(str, folders)]), False)
    with pytest.raises(InputError, match="call it without -m"):
        compare.run(CompareConfig(), True)
