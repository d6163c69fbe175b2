"""The command line: what people type, and what they are told when it is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.run import Session
from pipeline.ingest import shard_images, shard_names
from tests.flows.project import write_project


@pytest.fixture
def project(finished: Path) -> Path:
    """A configuration whose stages have all run."""
    return finished


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_run_makes_every_stage_and_a_report(project: Path) -> None:
    found = Session.open(str(project)).resolve()
    assert all(resolution.done for resolution in found.values())
    evaluation = found["evaluate"].manifest
    assert evaluation is not None
    report = Path(evaluation.store, evaluation.detail["report"]).read_text()
    assert "<html" in report
    captions = found["caption"].manifest
    assert captions is not None
    assert sum(part.rows for part in captions.parts) == 24 * 7  # every image, every prompt of the paper's set


def test_doctor_data_measures_a_run(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data_doctor.STEPS", 3)
    monkeypatch.setattr("training.data_doctor.IMAGES", 50)
    assert main(["doctor", "data", str(project)]) == 0
    report = capsys.readouterr().out
    assert "run holism: " in report
    assert "images/s" in report
    assert main(["doctor", "data", str(project), "--run", "other"]) == 2
    assert "--run: found 'other', but train.runs has holism" in capsys.readouterr().err
    assert main(["doctor", "data", str(project), "--set", f"workspace={tmp_path / 'none'}"]) == 2
    assert "there is no result of 'ingest' yet; run it first: holism ingest" in capsys.readouterr().err


def test_diversity_writes_a_page_and_names_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diversity", str(project), str(project), "--model", "none"]) == 0
    (page,) = capsys.readouterr().out.split()
    text = Path(page).read_text()
    assert f"{project.stem} 1: " in text
    assert f"{project.stem} 2: " in text


def test_a_second_run_does_nothing_and_says_so_without_heavy_imports(project: Path) -> None:
    code = (
        "import sys; from flows.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'ray', 'vllm', 'prefect', 'open_clip', 'transformers'} & set(sys.modules); "
        "print('HEAVY', sorted(heavy)); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(project)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "nothing to do" in done.stdout
    assert "HEAVY []" in done.stdout


def test_status_says_what_is_stale_and_why(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(project)]) == 0
    assert capsys.readouterr().out.count(" done ") == 5
    assert main(["status", str(project), "--set", "curate.reject.max_run=5"]) == 0
    out = capsys.readouterr().out
    assert "reject.max_run was 2 and is 5" in out
    assert "waits for curate" in out


def test_an_operational_setting_makes_nothing_stale(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(project), "--set", "train.workers=3", "--set", "caption.chunk_images=16"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 5


def test_a_single_stage_names_the_command_to_run_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=4, heldout=4)
    assert main(["curate", str(config)]) == 2
    assert f"holism ingest {config}" in capsys.readouterr().err
    assert main(["ingest", str(config)]) == 0
    capsys.readouterr()
    assert main(["curate", str(config)]) == 2
    assert f"holism caption {config}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ingest": None}, "ingest"),
        ({"workspace": None}, "'workspace' is missing"),
        ({"captoin": {}}, "did you mean 'caption'"),
        ({"train": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"train": {"epochs": "many"}}, "'train.epochs' is 'many'"),
        ({"ingest": {"source": {"kind": "ftp", "path": "x"}}}, "ingest.source"),
        ({"ingest": {"source": {"kind": "folder", "path": "/nowhere/at/all"}}}, "/nowhere/at/all"),
        ({"caption": {"models": ["/nowhere/vlm"], "engine": {"kind": "transformers"}}}, "/nowhere/vlm"),
        ({"evaluate": {"benchmarks": ["/nowhere/bench"]}}, "/nowhere/bench"),
    ],
)
def test_bad_configuration_ends_in_one_sentence(
    tmp_path: Path, project: Path, capsys: pytest.CaptureFixture[str], change: dict, expected: str
) -> None:
    config = tmp_path / "holism.yaml"
    data = {**yaml.safe_load(project.read_text()), "workspace": str(tmp_path / "workspace")}
    for key, value in change.items():
        if value is None:
            del data[key]
        else:
            data[key] = value
    config.write_text(yaml.safe_dump(data))
    assert main(["run", str(config)]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert "holism: error:" in said


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-such.yaml"]) == 2
    assert "no-such.yaml" in capsys.readouterr().err


def test_unknown_stages_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(project), "--stages", "captoin"]) == 2
    assert "captoin" in capsys.readouterr().err


def test_browse_names_a_port_in_use(project: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _command("browse", str(project), "--port", str(port))
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_run_on_a_held_workspace_names_the_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=16, heldout=4)
    slow = ["--set", "caption.engine.fake.delay_seconds=3"]
    first = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(config), "--stages", "ingest,caption", *slow]
    )
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "workspace").glob("manifests/ingest-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert main(["run", str(config)]) == 2
        assert str(first.pid) in capsys.readouterr().err
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert main(["run", str(config), "--stages", "ingest,caption"]) == 0  # the dead holder's lock is taken over


def test_a_run_that_gave_images_up_says_so_in_its_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_project(tmp_path, train=6, heldout=2)
    assert main(["ingest", str(config)]) == 0
    images = Session.open(str(config)).workspace.manifests("ingest")[0]
    poison = shard_images(images, shard_names(images)[0])["image_id"][0].as_py()
    deadly = ["caption", str(config), "--set", f"caption.engine.fake.die_on=[{poison}]"]
    assert main(deadly) == 3
    assert "crashed the engine twice on their own" in capsys.readouterr().err
    assert main(deadly) == 0  # nothing to do
    assert main(["caption", str(config), "--retry-failed"]) == 0


@pytest.mark.slow
def test_training_under_torchrun_equals_one_process(tmp_path: Path) -> None:
    config = write_project(tmp_path, train=16, heldout=4)
    before = ["run", str(config), "--stages", "ingest,caption,curate"]
    assert main(before) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "flows.cli", "train", str(config)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    spread = _losses(config)
    shutil.rmtree(tmp_path / "workspace" / "train")
    for manifest in (tmp_path / "workspace" / "manifests").glob("train-*"):
        manifest.unlink()
    assert main(["train", str(config)]) == 0
    assert spread == pytest.approx(_losses(config), rel=1e-4)


def _losses(config: Path) -> list[float]:
    manifest = Session.open(str(config)).resolve()["train"].manifest
    assert manifest is not None
    metrics = next(Path(manifest.store).glob("holism-*/metrics.jsonl"))
    return [json.loads(line)["loss"] for line in metrics.read_text().splitlines() if "loss" in line]


def test_export_writes_the_trained_model_with_its_origin(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import training

    assert main(["export", str(project), "--to", str(tmp_path / "out")]) == 0
    assert "config.json" in capsys.readouterr().out
    model, _, _ = training.load(tmp_path / "out")
    assert len(model.slots) == 8
    manifest = Session.open(str(project)).resolve()["train"].manifest
    assert manifest is not None
    card = (tmp_path / "out" / "README.md").read_text()
    assert manifest.detail["runs"]["holism"]["fingerprint"] in card
    assert manifest.inputs["curate"] in card
    assert "| captioned by | fake:fake (revision 0) |" in card
    assert "| images | 24, from a folder |" in card
    assert "| demo_world | macro accuracy object |" in card
    for file in (tmp_path / "out").iterdir():
        assert str(project.parent).encode() not in file.read_bytes()
    (tmp_path / "out" / "README.md").write_text("notes of my own")
    assert main(["export", str(project), "--to", str(tmp_path / "out")]) == 2
    assert "README.md is there already" in capsys.readouterr().err
    assert main(["export", str(project), "--to", str(tmp_path / "out"), "--run", "nobody"]) == 2
    assert "the trained runs are holism" in capsys.readouterr().err
    assert main(["export", str(project), "--to", str(tmp_path / "out"), "--set", "train.seed=9"]) == 2
    assert "holism train" in capsys.readouterr().err


def test_retry_failed_reaches_the_stage(tmp_path: Path) -> None:
    config = write_project(tmp_path, train=6, heldout=2)
    assert main(["ingest", str(config)]) == 0
    ingest = Session.open(str(config)).resolve()["ingest"].manifest
    assert ingest is not None
    broken = shard_images(ingest, shard_names(ingest)[0])["image_id"].to_pylist()[0]
    assert main(["caption", str(config), "--set", f"caption.engine.fake.raise_on=[{broken}]"]) == 0

    def errors() -> int:
        manifest = Session.open(str(config)).resolve()["caption"].manifest
        assert manifest is not None
        return int(manifest.counts["errors"])

    assert errors() == 7
    assert main(["caption", str(config)]) == 0
    assert errors() == 7  # nothing to do
    assert main(["caption", str(config), "--retry-failed"]) == 0
    assert errors() == 0


def test_status_names_what_changed_outside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=8, heldout=4)
    assert main(["run", str(config)]) == 0
    image = next((tmp_path / "scenes" / "train").glob("*.*g"))
    shutil.copy(image, image.with_name(f"zz{image.suffix}"))
    capsys.readouterr()
    assert main(["status", str(config)]) == 0
    assert "what it reads from outside has changed (source)" in capsys.readouterr().out
    image.with_name(f"zz{image.suffix}").unlink()
    spec = tmp_path / "scenes" / "heldout" / "benchmark.yaml"
    spec.write_text(spec.read_text() + "\n# another comment\n")
    assert main(["status", str(config)]) == 0
    out = capsys.readouterr().out
    assert "what it reads from outside has changed (benchmark 0)" in out
    assert out.count(" done ") == 4


def test_diversity_looks_at_all_its_configurations_before_it_begins(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(project.read_text())
    elsewhere = yaml.safe_load(other.read_text()) | {"workspace": str(tmp_path / "ws")}
    other.write_text(yaml.safe_dump(elsewhere))
    assert main(["diversity", str(project), str(other), "--model", "none"]) == 2
    said = capsys.readouterr().err
    assert f"{other} has no curated captions" in said
    assert "diversity of" not in said
