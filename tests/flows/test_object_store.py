"""All five stages through the command line with the workspace on S3, with Ray and loader workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.flows.project import write_project
from tests.moto_s3 import S3

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def _holism(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def _kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").iterdir() if not path.name.startswith(".")]


def test_all_stages_on_an_object_store(tmp_path: Path, s3: S3) -> None:
    config = write_project(tmp_path, train=16, heldout=6)
    settings = yaml.safe_load(config.read_text())
    settings["workspace"] = f"s3://{s3.bucket}/ws"
    settings["caption"]["ray"] = {"enabled": True}
    settings["ray"] = {"num_cpus": 2}
    settings["train"] |= {"workers": 2, "checkpoint_every": 1, "epochs": 3, "shard_cache": str(tmp_path / "cache")}
    settings["ingest"]["shard_images"] = 8
    config.write_text(yaml.safe_dump(settings))
    begun = _holism("run", str(config), "--stages", "ingest,caption,curate")
    asked: list[tuple[int, ...]] = []

    def note(request: dict[str, str]) -> None:
        if request["PATH_INFO"].endswith(".tar") and request["REQUEST_METHOD"] == "GET":
            asked.append(tuple(map(int, request["HTTP_RANGE"].removeprefix("bytes=").split("-"))))

    s3.fail = note
    done = _holism("run", str(config))
    s3.fail = lambda _: None
    assert done.returncode == 0, done.stderr
    assert (begun.stdout + done.stdout).count(": done in ") == 5, begun.stderr
    assert len(asked) == 2  # once for each shard, by workers of three epochs
    assert sum(end - start + 1 for start, end in asked) == sum(part.stat().st_size for part in _kept(tmp_path))
    again = _holism("run", str(config))
    assert "nothing to do" in again.stdout, again.stderr
    assert _holism("status", str(config)).stdout.count(" done ") == 5
    keys = [entry["Key"] for entry in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]]
    assert "ws/.lock" not in keys
    assert not any("checkpoints" in key for key in keys)


@pytest.mark.parametrize("command", ["status", "plan", "ingest"])
def test_a_store_that_is_not_there_or_does_not_answer_is_one_sentence(tmp_path: Path, s3: S3, command: str) -> None:
    config = write_project(tmp_path, train=1, heldout=1)
    silent = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    for bucket, env, words in (("no-such-bucket", {}, "no such bucket"), (s3.bucket, silent, "does not answer")):
        done = _holism(command, str(config), "--set", f"workspace=s3://{bucket}/x", env=env)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert words in line
        assert f"s3://{bucket}/x" in line
