"""`plan` and `status` refuse what `run` refuses, for every stage, before anything was paid for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.config import load_config
from tests.flows.project import write_project

MISSPELT = "{name: x, perspective: summary, granularity: sentense}"
TABLE = "name: t, path: x.parquet, columns: {image: a, text: b}, perspective: detail, granularity: sentence"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of which nothing has run."""
    return write_project(tmp_path_factory.mktemp("project"), train=4, heldout=4)


@pytest.mark.parametrize(
    ("change", "stage", "said"),
    [
        ("ingest.source.path=/nowhere/images", "ingest", "/nowhere/images"),
        ("caption.prompts.set=papier", "caption", "there is no prompt set 'papier'"),
        ("caption.prompts.only=[detial]", "caption", "'detial'"),
        ("caption={models: [/nowhere/vlm], engine: {kind: transformers}}", "caption", "/nowhere/vlm is not there"),
        ("curate.phrases=/nowhere.yaml", "curate", "/nowhere.yaml"),
        ("curate.off_topic.perspectives=[backgruond]", "curate", "did you mean 'background'?"),
        ("curate.ground.scorer={model: ViT-B-33, pretrained: openai}", "curate", "did you mean 'ViT-B-32'?"),
        ("curate.ground.scorer={checkpoint: /nowhere/model}", "curate", "/nowhere/model, and nothing is there"),
        ("train.slots=[alt_text, backgruond]", "train", "did you mean 'background'? there are alt_text, background,"),
        (f"train.slots=[{MISSPELT}]", "train", "granularity 'sentense', but those have phrase, sentence"),
        ("train.runs={a: {slots: [mood]}}", "train", "'mood', which no prompt or table of this configuration gives"),
        ("train.warm_start=/nowhere/weights.pt", "train", "no checkpoint at /nowhere/weights.pt"),
        ("train={model: ViT-B-32, warm_start: 'open_clip:laionn'}", "train", "open_clip has no weights 'laionn'"),
        ("evaluate.benchmarks=[/nowhere/bench]", "evaluate", "there is no benchmark folder /nowhere/bench"),
        ("evaluate.readouts=[mean, 'branch:detial']", "evaluate", "'branch:detial', but the runs' branches are"),
    ],
)
def test_what_run_refuses_is_refused_by_plan_and_status(
    project: Path, capsys: pytest.CaptureFixture[str], change: str, stage: str, said: str
) -> None:
    for command in ("plan", "status", "run"):
        assert main([command, str(project), "--set", change]) == 2, command
        out, error = capsys.readouterr()
        assert "would run: cannot run" not in out
        assert said in error, command
        assert command == "run" or f"holism: error: {stage} cannot run: " in error
        assert error.count("\n") == 1
    others = ",".join(name for name in ("ingest", "caption", "curate", "train", "evaluate") if name != stage)
    assert main(["plan", str(project), "--set", change, "--stages", others]) == 0
    assert not (Path(load_config(project).workspace) / "ingest").exists(), "nothing was begun"


def test_every_stage_with_a_problem_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "evaluate.benchmarks=[]", "--set", "train.warm_start=/nowhere", "--set", "curate.phrases=/no"]
    assert main(["plan", str(project), *changes]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines] == ["curate", "train", "evaluate"]
    assert main(["plan", str(project)]) == 0


def test_a_broken_benchmark_is_found_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_project(tmp_path, train=4, heldout=4)
    next((tmp_path / "scenes" / "heldout" / "images").iterdir()).unlink()
    assert main(["plan", str(config)]) == 2
    assert "1 of 4 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "curate.sub_captions.enabled=true",  # parts of details are sentences
        f"caption.tables=[{{{TABLE}}}]",
        "caption.tables=[{name: t, path: x.parquet, columns: {image: a, text: b, perspective: p}}]",
    ],
)
def test_slots_may_be_filled_by_whatever_the_configuration_brings(
    project: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    slots = "train.slots=[{name: x, perspective: detail, granularity: sentence}]"
    assert main(["plan", str(project), "--stages", "train", "--set", slots]) == 2
    assert "but those have paragraph" in capsys.readouterr().err
    assert main(["plan", str(project), "--stages", "train", "--set", slots, "--set", change]) == 0


def test_default_slots_without_captions_are_no_mistake(project: Path) -> None:
    assert main(["plan", str(project), "--set", "caption.prompts.only=[detail]", "--stages", "train"]) == 0


@pytest.mark.parametrize("workspace", ["foo://x/y", "", "a\0b"])
def test_a_workspace_that_cannot_be_is_one_sentence(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workspace: str
) -> None:
    config = tmp_path / "holism.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(project.read_text()), "workspace": workspace}))
    assert main(["plan", str(config)]) == 2
    assert "'workspace' is " in capsys.readouterr().err
