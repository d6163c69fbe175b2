"""`holism evaluate --model`: models of others, with no stage before and with no configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.run import Session
from pipeline import schemas
from tests.evaluation.conftest import write_squares
from tests.evaluation.test_models import save_transformers, tiny_holism
from tests.flows.project import write_project

QUICK = ["--set", "evaluate.bootstrap_samples=100", "--set", "evaluate.device=cpu", "--set", "evaluate.workers=1"]


def test_models_are_measured_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    squares = write_squares(tmp_path / "squares")
    ours, theirs = tiny_holism(tmp_path / "first"), save_transformers(tmp_path / "clip", "clip")
    monkeypatch.chdir(tmp_path)
    asked = ["evaluate", "--model", "ours=first", "--model", str(theirs), "--benchmark", str(squares), *QUICK]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "2 runs on 1 benchmark" in said
    assert " ours   clip" in said
    assert main(asked) == 0
    assert "nothing to do" in capsys.readouterr().out
    ours.rename(tmp_path / "elsewhere")
    assert main(["evaluate", "--model", "ours=elsewhere", *asked[3:]]) == 0
    assert "nothing to do" in capsys.readouterr().out, "a model is its content"


def test_a_configuration_without_images_has_one_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squares = write_squares(tmp_path / "squares")
    config = tmp_path / "measure.yaml"
    evaluate = {"benchmarks": [str(squares)], "bootstrap_samples": 100, "device": "cpu", "workers": 1}
    config.write_text(yaml.safe_dump({"workspace": str(tmp_path / "ws"), "evaluate": evaluate}))
    assert main(["status", str(config)]) == 2
    assert "'ingest' is missing" in capsys.readouterr().err
    model = ["--model", f"ours={tiny_holism(tmp_path / 'first')}"]
    assert main(["evaluate", str(config), *model]) == 0
    evaluate["models"] = {"ours": str(tmp_path / "first")}
    config.write_text(yaml.safe_dump({"workspace": str(tmp_path / "ws"), "evaluate": evaluate}))
    for command in ("status", "plan", "run", "verify"):
        capsys.readouterr()
        assert main([command, str(config)]) == 0, command
        assert "cannot run" not in "".join(capsys.readouterr()), command
    assert main(["ingest", str(config)]) == 2
    assert "no section 'ingest'" in capsys.readouterr().err


def test_runs_and_models_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=8, heldout=6)
    models = [
        "--model", f"theirs={save_transformers(tmp_path / 'siglip', 'siglip')}",
        "--model", f"other={tiny_holism(tmp_path / 'first')}",
    ]  # fmt: skip
    assert main(["evaluate", str(config), *models]) == 2
    said = capsys.readouterr().err
    assert "needs the result of 'train'" in said
    assert "or measure evaluate.models without it: --set evaluate.runs=false" in said
    assert main(["run", str(config)]) == 0
    assert main(["evaluate", str(config), *models]) == 0
    manifest = Session.open(str(config)).workspace.manifests("evaluate")[0]
    results = manifest.read(manifest.select("results")[0], schemas.RESULTS).to_pylist()
    assert {row["run"] for row in results} == {"holism", "theirs", "other"}
    value = {(row["run"], row["query"], row["metric"]): row["value"] for row in results if row["readout"] == "mean"}
    rows = manifest.read(manifest.select("differences")[0], schemas.DIFFERENCES).to_pylist()
    assert {(row["run"], row["other_run"]) for row in rows} == {
        ("holism", "theirs"), ("holism", "other"), ("theirs", "other"),
    }  # fmt: skip
    for row in (row for row in rows if row["readout"] == "mean"):
        one, other = (value[run, row["query"], row["metric"]] for run in (row["run"], row["other_run"]))
        assert row["difference"] == pytest.approx(one - other)
        assert row["ci_low"] <= row["ci_high"]
    page = (manifest.location(manifest.select("report")[0])).read().decode()
    assert "Differences of any two" in page
    assert main(["evaluate", str(config), "--model", f"holism={tmp_path / 'first'}"]) == 2
    assert "called 'holism'" in capsys.readouterr().err


def evaluated_alone(folder: Path, name: str, squares: Path, models: dict[str, str]) -> Path:
    """A configuration of models alone, in a workspace of its own, evaluated."""
    config = folder / f"{name}.yaml"
    evaluate = {
        "benchmarks": [str(squares)],
        "models": models,
        "bootstrap_samples": 100,
        "device": "cpu",
        "workers": 1,
    }
    config.write_text(yaml.safe_dump({"workspace": str(folder / name), "evaluate": evaluate}))
    assert main(["evaluate", str(config)]) == 0
    return config


def test_several_workspaces_stand_on_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    squares, elsewhere = write_squares(tmp_path / "squares"), write_squares(tmp_path / "elsewhere")
    first, clip = tiny_holism(tmp_path / "model"), save_transformers(tmp_path / "clip", "clip")
    one = evaluated_alone(tmp_path, "one", squares, {"ours": str(first)})
    two = evaluated_alone(tmp_path, "two", elsewhere, {"ours": str(clip), "theirs": str(clip)})
    encoded = []
    monkeypatch.setattr(
        "evaluation.features._image_batches", lambda _, __, batches, ___: iter(encoded.extend(batches) or ())
    )
    capsys.readouterr()
    assert main(["compare", str(one), str(two), "--output", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert not encoded, "features are read where they were made"
    page = (tmp_path / "page.html").read_text()
    for name in ("one: ours", "two: ours", "theirs", "Differences of any two"):
        assert name in page
    assert "results.parquet" not in page, "there is none beside it"
    assert "one: ours" in (tmp_path / "page.md").read_text()
    other = write_squares(tmp_path / "other", name="another set")
    monkeypatch.undo()
    three = evaluated_alone(tmp_path, "three", other, {"ours": str(first)})
    assert main(["compare", str(one), str(three)]) == 2
    assert "no benchmark in common" in capsys.readouterr().err
    (tmp_path / "one" / "manifests").rename(tmp_path / "away")
    assert main(["compare", str(one), str(two)]) == 2
    assert "has no evaluation under this configuration" in capsys.readouterr().err
