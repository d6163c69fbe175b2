"""Evaluation on the way as a user has it: two keys of the configuration, then `holism run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import training
from flows.cli import main
from tests.flows.project import write_project


def test_a_run_is_measured_on_the_way_and_its_best_and_averaged_models_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_project(tmp_path)
    settings = yaml.safe_load(config.read_text())
    settings["train"] |= {"evaluation": {"every": 2, "images": 8}, "best": {"figure": "heldout/macro_accuracy"}}
    settings["train"]["ema"] = 0.9
    settings["evaluate"]["weights"] = "best"
    config.write_text(yaml.safe_dump(settings))
    assert main(["plan", str(config)]) == 2
    said = capsys.readouterr()
    assert "train.best.figure is 'heldout/macro_accuracy', but figures begin with the benchmark's name: " in str(said)
    name = yaml.safe_load((tmp_path / "scenes" / "heldout" / "benchmark.yaml").read_text())["name"]
    best = ["--set", f"train.best.figure={name}/macro_accuracy"]
    assert main(["run", str(config), *best]) == 0
    (metrics,) = (tmp_path / "workspace" / "train").glob("holism-*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if f"eval/{name}/macro_accuracy" in row] == [1, 2]
    (report,) = (tmp_path / "workspace" / "evaluate").glob("*/report.html")
    assert f'aria-label="{name.replace("_", " ")}/macro accuracy by step"' in report.read_text()
    for kind in ("best", "ema"):
        assert main(["export", str(config), "--to", str(tmp_path / kind), f"--{kind}", *best]) == 0
        model, _, _ = training.load(tmp_path / kind)
        kept, _, _ = training.load(metrics.parent / kind)
        assert all(value.equal(kept.state_dict()[key]) for key, value in model.state_dict().items())
    assert main(["evaluate", str(config), *best, "--set", "evaluate.weights=ema"]) == 0
    assert len(list((tmp_path / "workspace" / "evaluate").glob("*/report.html"))) == 2


def test_a_best_model_that_nobody_keeps_cannot_be_used(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(finished), "--set", "evaluate.weights=best"]) == 2
    assert "evaluate.weights is best, but run holism keeps no best model; set train.best" in str(capsys.readouterr())
    assert main(["plan", str(finished), "--set", "evaluate.weights=ema"]) == 2
    assert "evaluate.weights is ema, but run holism keeps no ema model; set train.ema" in str(capsys.readouterr())
    assert main(["export", str(finished), "--to", str(tmp_path / "out"), "--ema"]) == 2
    assert "--ema: no ema model of run holism was kept; set train.ema" in capsys.readouterr().err
    assert main(["export", str(finished), "--to", str(tmp_path / "out"), "--best"]) == 2
    assert "--best: no best model of run holism was kept" in capsys.readouterr().err
    kept = ["train.evaluation.every=5", "train.best.figure=heldout_scenes/macro_accuracy", "evaluate.weights=best"]
    arguments = [part for setting in kept for part in ("--set", setting)]
    assert main(["evaluate", str(finished), *arguments]) == 2  # the run was trained before
    assert "no best model of run holism was kept; set train.best, delete " in capsys.readouterr().err
