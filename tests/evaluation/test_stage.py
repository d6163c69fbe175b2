"""The evaluate stage on trained models of one and of two branches: table, report, identity."""

import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.config import EvaluateConfig, SuiteAt
from evaluation.stage import STAGE, encoders
from pipeline import schemas, stage
from pipeline.commits import CommitLog
from pipeline.config import Section
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.evaluation import data_sets
from tests.evaluation.conftest import TINY, write_squares
from training.checkpoint import model_files, new_model
from training.config import RunConfig

RUNS = {"two": ("colour", "detail"), "one": ("alt_text",)}
FAST = {"bootstrap_samples": 100, "device": "cpu"}


class Nothing(Section):
    """Config of the stage that stands in for training."""


def untrained(run: stage.StageRun) -> stage.Outcome:
    """Models as the train stage leaves them, without the training."""
    log = CommitLog(run.workspace.folder("train"))
    parts, runs = [], {}
    for name, slots in RUNS.items():
        torch.manual_seed(0)
        recipe = RunConfig.model_validate({"model": TINY, "slots": slots, "losses": {"served": 1.0}})
        for file, data in model_files(new_model(recipe), recipe, 1).items():
            parts.append(log.commit(f"{name}-0/model/{file}", data, rows=1))
        runs[name] = {"folder": f"{name}-0/model", "fingerprint": f"{name:0<32}", "branches": list(slots)}
    return stage.Outcome(log.folder.uri, parts, detail={"runs": runs})


STAGES = (stage.Stage("train", 1, (), Nothing, untrained), STAGE)


def resolve(workspace: Workspace, config: EvaluateConfig) -> Mapping[str, stage.Resolution]:
    configs = {"train": Nothing(), "evaluate": config}
    if not (found := stage.resolve(STAGES, configs, workspace))["train"].done:
        stage.execute(found["train"], workspace)
    return stage.resolve(STAGES, configs, workspace)


def evaluated(root: Path, *folders: Path, **settings: Any) -> Manifest:
    workspace = Workspace(root / "ws")
    config = EvaluateConfig.model_validate({"benchmarks": [str(folder) for folder in folders], **FAST, **settings})
    return stage.execute(resolve(workspace, config)["evaluate"], workspace)


def page_of(manifest: Manifest) -> str:
    return (Location.of(manifest.store) / manifest.detail["report"]).read().decode()


def test_results_hold_every_figure_with_interval_and_chance(squares: Path, tmp_path: Path) -> None:
    manifest = evaluated(tmp_path, squares)
    rows = schemas.read(manifest.location(manifest.select("results")[0]), schemas.RESULTS).to_pylist()
    readouts = {(row["run"], row["readout"]) for row in rows}
    assert readouts == {
        ("two", "mean"), ("two", "paper_mean"), ("two", "max"), ("two", "weighted"),
        ("two", "branch:colour"), ("two", "branch:detail"),
        ("one", "mean"), ("two", "branches"),
    }  # fmt: skip
    searched = 2 * 2 * (3 + 2)  # perspectives x directions x (k, median rank, mAP)
    told = 2 * 2  # tasks x (macro, plain)
    specialisation = 2 * 2  # directions x (share, margin)
    by_vectors = len(readouts) - 1
    assert len(rows) == searched * by_vectors + told * (by_vectors - 1) + specialisation, (
        "weights are for retrieval alone"
    )
    for row in rows:
        if row["metric"].endswith("margin"):  # may lie below 0, which is its chance
            assert (row["chance"], -1 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1) == (0, True)
            continue
        most = 12 if row["metric"].endswith("rank") else 1
        assert 0 <= row["ci_low"] <= row["ci_high"] <= most
        assert 0 < row["chance"] <= most
    size = next(row for row in rows if row["query"] == "size" and row["metric"] == "accuracy")
    assert (size["n"], size["chance"], size["model"][:3]) == (11, 0.5, "two")
    colour = [row for row in rows if row["query"] == "colour" and row["metric"] == "text_to_image_recall@1"]
    assert [row["chance"] for row in colour] == pytest.approx([4 / 12] * len(colour))


def test_image_to_text_and_classes_do_not_care_whether_the_mean_is_normalised(squares: Path, tmp_path: Path) -> None:
    manifest = evaluated(tmp_path, squares)
    rows = schemas.read(manifest.location(manifest.select("results")[0]), schemas.RESULTS).to_pylist()
    value = {(r["readout"], r["query"], r["metric"]): r["value"] for r in rows if r["run"] == "two"}
    same = [key for key in value if key[0] == "mean" and not key[2].startswith("text_to_image")]
    assert same
    assert all(value[key] == value[("paper_mean", *key[1:])] for key in same)


def test_other_processes_can_load_a_run(squares: Path, tmp_path: Path) -> None:
    evaluated(tmp_path, squares)
    config = EvaluateConfig(benchmarks=(str(squares),), **FAST)
    train = resolve(Workspace(tmp_path / "ws"), config)["train"].manifest
    assert train is not None
    for encoder in encoders(train, train.detail["runs"], config):
        assert encoder.again is not None
        assert pickle.loads(pickle.dumps(encoder.again))().weights == encoder.weights


def test_a_second_run_has_nothing_to_do_and_a_changed_label_has(
    squares: Path, tmp_path: Path, rewrite: Callable[[Path, Any], None]
) -> None:
    evaluated(tmp_path, squares)
    workspace, config = Workspace(tmp_path / "ws"), EvaluateConfig(benchmarks=(str(squares),), **FAST)
    assert resolve(workspace, config)["evaluate"].done
    moved = squares.rename(tmp_path / "moved")
    assert resolve(workspace, EvaluateConfig(benchmarks=(str(moved),), **FAST))["evaluate"].done
    rewrite(moved / "labels.parquet", lambda rows: rows[5].update(colour="red"))
    assert not resolve(workspace, EvaluateConfig(benchmarks=(str(moved),), **FAST))["evaluate"].done


def test_what_is_wrong_with_a_table_is_said_before_anything_is_trained(
    squares: Path, tmp_path: Path, rewrite: Callable[[Path, Any], None]
) -> None:
    """As `holism plan` looks: the stage that trains has no result yet."""
    rewrite(squares / "queries.parquet", lambda rows: rows[0].update(perspective=None))
    configs = {"train": Nothing(), "evaluate": EvaluateConfig(benchmarks=(str(squares),))}
    found = stage.resolve(STAGES, configs, Workspace(tmp_path / "ws"))["evaluate"]
    assert "the column 'perspective' holds no texts in row cred" in str(found.problem)


def test_the_report_stands_alone(squares: Path, tmp_path: Path) -> None:
    page = page_of(evaluated(tmp_path, squares))
    headings = (
        "Zero-shot classification",
        "Text to image",
        "Image to text",
        "What each branch has learned",
        "What moves each branch",
        "Zero-shot by readout",
        "Confusions",
        "Hits and misses",
        "Protocol",
    )
    for heading in headings:
        assert re.search(rf"<h2[^>]*>{heading}</h2>", page)
    assert "By construction." in page
    assert not re.search(r"(https?:)?//[a-z]|@import|<link|<script (src)?", re.sub(r"base64,[^\"]+", "", page))
    assert set(re.findall(r'src="([a-z]+:)', page)) == {"data:"}


def test_everything_from_outside_is_escaped(
    squares: Path, tmp_path: Path, rewrite: Callable[[Path, Any], None]
) -> None:
    evil = "<script>alert(1)</script>"
    text = (squares / "benchmark.yaml").read_text()
    (squares / "benchmark.yaml").write_text(text.replace("By construction.", evil).replace("squares", f"'{evil}'"))
    rewrite(squares / "queries.parquet", lambda rows: [row.update(text=f'{evil}" onerror="{i}') for i, row in
                                                       enumerate(rows)])  # fmt: skip
    rewrite(squares / "queries.parquet", lambda rows: [row.update(perspective=evil) for row in rows[:3]])
    page = page_of(evaluated(tmp_path, squares))
    assert page.count("<script") == page.count("<script>// A click") == 1
    assert 'onerror="' not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("without", ["queries", "classification", "branches"])
def test_a_report_shows_what_there_is(
    squares: Path, tmp_path: Path, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without == "queries":
        (squares / "queries.parquet").unlink()
    elif without == "classification":
        (squares / "benchmark.yaml").write_text("name: squares\n")
    else:
        monkeypatch.delitem(RUNS, "two")
    manifest = evaluated(tmp_path, squares)
    page = page_of(manifest)
    assert ("<h2>Text to image</h2>" in page) == (without != "queries")
    assert ("<h2>Zero-shot classification</h2>" in page) == (without != "classification")
    assert ("What each branch has learned" in page) == (without == "classification")
    assert ("own_branch_wins" in manifest.detail["headline"]["one"]["squares"]) is False


def test_two_benchmarks_and_an_earlier_ones_features(squares: Path, tmp_path: Path) -> None:
    other = write_squares(tmp_path / "other", name="other squares")
    manifest = evaluated(tmp_path, squares, other)
    assert set(manifest.detail["headline"]["two"]) == {"squares", "other squares"}
    assert page_of(manifest).count("<h2>Text to image</h2>") == 2


def test_a_benchmark_that_is_not_there_is_a_warning_and_work_once_it_has_come(squares: Path, tmp_path: Path) -> None:
    at = SuiteAt(suite="urban1k", root=str(tmp_path / "urban"))
    config = EvaluateConfig(benchmarks=(str(squares), at), **FAST)
    workspace = Workspace(tmp_path / "ws")
    manifest = stage.execute(resolve(workspace, config)["evaluate"], workspace)
    (warning,) = manifest.warnings
    assert warning.startswith(f"the suite urban1k expects its files in {tmp_path}/urban, and there is no such folder")
    assert set(manifest.detail["headline"]["two"]) == {"squares"}
    assert resolve(workspace, config)["evaluate"].done
    (tmp_path / "urban").mkdir()
    data_sets.urban1k(tmp_path / "urban")
    manifest = stage.execute(resolve(workspace, config)["evaluate"], workspace)
    assert list(manifest.warnings) == []
    assert set(manifest.detail["headline"]["two"]) == {"squares", "urban1k"}
    rows = schemas.read(manifest.location(manifest.select("results")[0]), schemas.RESULTS).to_pylist()
    assert {row["protocol"] for row in rows if row["dataset"] == "urban1k"} == {"urban1k/all_captions"}
    digests = {row["protocol"] for row in rows if row["task"] == "classification"}
    assert all(re.fullmatch(r"squares/zero_shot_\d_templates_[0-9a-f]{8}", protocol) for protocol in digests)
    assert len(digests) == 2


def test_no_benchmarks_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.benchmarks is empty"):
        evaluated(tmp_path)


def test_a_readout_that_no_run_has_is_refused(squares: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'branch:mood', but the runs' branches are alt_text, colour"):
        evaluated(tmp_path, squares, readouts=("mean", "branch:mood"))


def test_looking_whether_there_is_work_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'open_clip', 'matplotlib', 'ray', 'prefect'}"
    code = f"import sys, evaluation.stage; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_intervals_follow_from_the_seed(squares: Path, tmp_path: Path) -> None:
    def intervals(name: str, seed: int) -> list[tuple[float, float]]:
        manifest = evaluated(tmp_path / name, squares, seed=seed)
        rows = schemas.read(manifest.location(manifest.select("results")[0]), schemas.RESULTS).to_pylist()
        return [(row["ci_low"], row["ci_high"]) for row in rows]

    first = intervals("a", 1)
    assert intervals("b", 1) == first
    assert intervals("c", 2) != first


def test_more_than_two_runs_stand_below_each_other(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side = page_of(evaluated(tmp_path, squares))
    assert re.findall(r'<table class="wide(.*?)"', side_by_side) == ["", " stacked", " stacked"], "retrieval is wider"
    monkeypatch.setattr(f"{__name__}.RUNS", dict.fromkeys(("a", "b", "c", "d", "e"), ("alt_text",)))
    manifest = evaluated(tmp_path / "five", squares)
    body = page_of(manifest).split("</style>")[1]
    tables = re.findall(r'<table class="wide stacked">(.*?)</table>', body, re.DOTALL)
    assert len(tables) == 3, "classification, and retrieval in both directions"
    for table in tables:
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        assert max(len(re.findall(r"<t[dh]", row)) for row in rows) == len(re.findall("<th>", rows[0])) <= 8
    lines = STAGE.describe(manifest)
    assert lines[0] == "5 runs on 1 benchmark"
    assert re.fullmatch(r"squares, served vector, % +chance +a +b +c +d +e", lines[1])
    assert re.fullmatch(r"macro accuracy colour +33\.3( +\d+\.\d){5}", lines[2])
    assert lines[-1] == f"report: {manifest.store}/report.html"
