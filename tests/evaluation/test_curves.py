"""Curves of training in the report: what the metrics say, and nothing where there are none."""

from pathlib import Path

import pytest

from evaluation import curves
from evaluation.config import EvaluateConfig
from evaluation.stage import STAGE
from pipeline import stage
from pipeline.commits import CommitLog
from pipeline.errors import StoreError
from pipeline.manifest import Manifest
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.evaluation.test_stage import FAST, Nothing, untrained

ROWS = (
    '{"step": 0, "loss": 3.0}\n'
    '{"step": 1, "loss": 2.0, "eval/squares/accuracy": 0.25, "eval/squares/accuracy/size": 0.1, "eval/seconds": 4.0}\n'
    '{"step": 2, "loss": 1.5}\n{"step": 3, "loss": 1.0, "eval/squares/accuracy": 0.75}\n'
)


def watched(run: stage.StageRun) -> stage.Outcome:
    """As the train stage leaves runs of which one was evaluated on the way."""
    outcome = untrained(run)
    log = CommitLog(Location.of(outcome.store))
    parts = [log.commit("two-0/metrics.jsonl", ROWS.encode(), rows=4)]
    parts.append(log.commit("one-0/metrics.jsonl", b'{"step": 0, "loss": 2.0}\n', rows=1))
    captions = {"images": 20, "captions": 100, "kept": 90, "mean_similarity": 0.125}
    return stage.Outcome(outcome.store, [*outcome.parts, *parts], detail={**outcome.detail, "captions": captions})


def evaluated(folder: Path, squares: Path) -> dict[str, Manifest]:
    stages = (stage.Stage("train", 1, (), Nothing, watched), STAGE)
    configs = {"train": Nothing(), "evaluate": EvaluateConfig.model_validate({"benchmarks": [str(squares)], **FAST})}
    workspace = Workspace(folder / "ws")
    return {one.name: stage.execute(stage.resolve(stages, configs, workspace)[one.name], workspace) for one in stages}


def test_the_report_shows_the_curves(tmp_path: Path, squares: Path) -> None:
    found = evaluated(tmp_path, squares)
    loss, accuracy = curves.charts(curves.read(found["train"]))
    assert loss.lines == {"two": [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)], "one": [(1, 2.0)]}
    assert (accuracy.title, accuracy.lines["two"]) == ("squares/accuracy", [(2, 0.25), (4, 0.75)])
    assert (loss.at(4, 1.0), loss.at(4, 3.0), accuracy.at(2, 0.0)) == ((1, 1), (1, 0), (0.5, 1))
    page = (Location.of(found["evaluate"].store) / "report.html").read().decode()
    assert "Training</h2>" in page
    assert 'aria-label="squares/accuracy by step"' in page
    assert "90 captions of 20 images, 4.5 an image, kept of 100 that were written" in page
    assert "a mean similarity of 0.125" in page
    assert "250.0,116.7 450.0,10.0" in page  # after half of the steps a third of the highest value, then that


def test_damaged_metrics_are_named(tmp_path: Path, squares: Path) -> None:
    train = evaluated(tmp_path, squares)["train"]
    (file,) = (tmp_path / "ws").rglob("two-0/metrics.jsonl")
    file.write_text(ROWS.replace("3.0", "9.0"))
    with pytest.raises(StoreError, match=r"two-0/metrics\.jsonl"):
        curves.read(train)
