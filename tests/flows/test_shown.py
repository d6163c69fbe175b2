"""What people are shown of a run: at its end, by `holism status`, and of one that failed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from flows.run import Session
from pipeline import failures
from pipeline.errors import StoreError
from pipeline.ingest import shard_images, shard_names
from pipeline.workspace import Workspace
from tests.flows.project import write_project


def test_status_says_what_came_out_of_every_stage(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "24 images in 1 shard" in said
    assert re.search(r"168 captions, all new, [\d,.]+ captions/s", said)
    assert re.search(r"kept \d+ of 168 captions \(\d+\.\d %\), \d\.\d for each of 24 images", said)
    assert re.search(r"dropped: off topic \d+ \(\d+\.\d %\)", said)
    assert re.search(r"holism: 3 steps, 24 images seen, loss \d\.\d+ → \d\.\d+ \(m2m \d\.\d+, served \d\.\d+\)", said)
    assert re.search(r"demo world, served vector, % +chance +holism\n", said)
    assert re.search(r"macro accuracy object +5\.6 +\d+\.\d\n", said)
    (report,) = re.findall(r"report: (.*)", said)
    assert Path(report).exists()


def test_a_stage_ends_with_the_same_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=4, heldout=2)
    assert main(["run", str(config), "--stages", "ingest,caption,curate"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ingest: done in \d+s: 4 images in 1 shard, 4 with alt text$", said, re.MULTILINE)
    assert re.search(r"^caption: done in \d+s: 28 captions, all new, ", said, re.MULTILINE)
    assert re.search(r"^curate: done in \d+s: kept \d+ of 28 captions .*\n  dropped: ", said, re.MULTILINE)
    assert main(["status", str(config)]) == 0
    status = capsys.readouterr().out
    for line in said.splitlines():
        assert line.split("s: ")[-1].strip() in status


def test_the_rate_does_not_count_the_start_of_the_engine(tmp_path: Path) -> None:
    config = write_project(tmp_path, train=4, heldout=2)
    slow_start = ["--set", "caption.engine.fake.start_seconds=1.5"]
    assert main(["run", str(config), "--stages", "ingest,caption", *slow_start]) == 0
    counts = Session.open(str(config)).workspace.manifests("caption")[0].counts
    assert counts["seconds"] > 1.5
    assert counts["captions_per_second"] < 28 / 1.5 < counts["rate_by_model"]["fake:fake"]


def test_a_failed_run_is_remembered_until_the_next_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=2, heldout=2)
    assert main(["ingest", str(config)]) == 0
    images = Session.open(str(config)).workspace.manifests("ingest")[0]
    ids = [image for shard in shard_names(images) for image in shard_images(images, shard)["image_id"].to_pylist()]
    assert main(["caption", str(config), "--set", f"caption.engine.fake.raise_on=[{','.join(ids)}]"]) == 2
    sentence = capsys.readouterr().err.split("holism: error: ")[1].strip()
    assert sentence.startswith("all captions failed (14)")
    assert main(["status", str(config)]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"its last run failed \d{{4}}-\d\d-\d\d \d\d:\d\d: {re.escape(sentence)}", said)
    assert main(["caption", str(config), "--retry-failed"]) == 0
    capsys.readouterr()
    assert main(["status", str(config)]) == 0
    assert "run failed" not in capsys.readouterr().out


def test_a_failure_under_other_settings_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_project(tmp_path, train=4, heldout=2)
    assert main(["run", str(config), "--stages", "ingest,caption,curate"]) == 0
    assert main(["train", str(config)]) == 2
    capsys.readouterr()
    assert main(["status", str(config), "--set", "train.global_batch=4"]) == 0
    assert re.search(r"its last run failed .*, with other settings or inputs: train.global_batch is 8, ", (
        capsys.readouterr().out
    ))  # fmt: skip


def test_failures_are_sentences_and_stops_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(str(tmp_path))
    with pytest.raises(StoreError), failures.remembered(workspace, "train", "f"):
        raise StoreError("no space is left; make room")
    assert failures.last(workspace, "train") == failures.Failure(
        failures.last(workspace, "train").at,
        "no space is left; make room",
        "f",  # type: ignore[union-attr]
    )
    with failures.remembered(workspace, "train", "g"):
        pass
    assert failures.last(workspace, "train") is None
    with pytest.raises(KeyError), failures.remembered(workspace, "train", "f"):
        raise KeyError("s3://user:secret@bucket/x\nsecond line")
    assert "KeyError" in failures.last(workspace, "train").error  # type: ignore[union-attr]
    assert "secret" not in (tmp_path / "failures" / "train.json").read_text()
    with pytest.raises(KeyboardInterrupt), failures.remembered(workspace, "curate", "f"):
        raise KeyboardInterrupt
    monkeypatch.setattr("pipeline.stops.under_way", lambda: True)
    with pytest.raises(StoreError), failures.remembered(workspace, "curate", "f"):
        raise StoreError("a pipe broke, as somebody stopped the run")
    assert failures.last(workspace, "curate") is None


def test_nobody_has_to_read_to_the_end(finished: Path) -> None:
    """`holism plan | head -1`."""
    code = (
        "import os, sys; from flows.cli import main; read, write = os.pipe(); os.close(read); os.dup2(write, 1); "
        "sys.exit(main(sys.argv[1:]))"
    )
    for command in (["plan", str(finished)], ["settings"]):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (141, "")
