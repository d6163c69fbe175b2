"""`holism benchmark`: suites are listed, looked at and written as folders; what is missing is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation import benchmarks, fetching, suites
from flows.cli import main
from tests.evaluation import data_sets


def test_suites_are_listed_with_their_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if not line.startswith(" ")] == [*suites.names(), *fetching.NAMES]
    assert "Licence: CC-BY-4.0." in said


def test_a_suite_is_looked_at_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "coco"
    root.mkdir()
    data_sets.WRITERS["coco_karpathy_5k"](root)
    assert main(["benchmark", f"coco_karpathy_5k={root}", "--name", "mine"]) == 0
    assert capsys.readouterr().out == ("mine: 4 images, 20 texts (mine/all_captions), 4 texts (mine/one_caption)\n")
    written = tmp_path / "folder"
    assert main(["benchmark", "coco_karpathy_5k", "--root", str(root), "--to", str(written)]) == 0
    assert f"written to {written}" in capsys.readouterr().out
    assert len(benchmarks.read(str(written)).queries) == 2
    assert main(["benchmark", "coco_karpathy_5k", "--root", str(root), "--to", str(written)]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["coco"], "there is no suite 'coco'"),
        (["coco_karpathy_5k"], "does not know where its files lie; write coco_karpathy_5k=FOLDER"),
        (["coco_karpathy_5k", "--root", "."], "Karpathy's file is missing: expected it at"),
        (["webdataset=.", "--images", "."], "has its pictures in tars; leave out `images`"),
        (["webdataset=.", "--root", "."], "give the folder once"),
        (["urban1k=.", "--name", "A B"], "name"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_suite_that_is_missing_in_a_configuration_is_told_and_the_rest_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.flows.project import write_project

    config = write_project(tmp_path, train=4, heldout=4)
    heldout = tmp_path / "scenes" / "heldout"
    both = f"evaluate.benchmarks=[{heldout}, {{suite: urban1k, root: {tmp_path}}}]"
    assert main(["plan", str(config), "--set", both]) == 0
    assert "the suite urban1k: the folder of pictures is missing" in capsys.readouterr().err
    assert main(["plan", str(config), "--set", f"evaluate.benchmarks=[{{suite: urban1k, rot: {tmp_path}}}]"]) == 2
    error = capsys.readouterr().err
    assert "rot" in error
    assert "did you mean 'root'" in error
