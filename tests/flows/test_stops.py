"""Stops by hand, as a user or a batch system sends them: one line, a status, no note and no process left."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import main
from pipeline.stops import StoppedError, handlers_kept, stoppable
from tests.flows.project import write_project
from tests.processes import alive, family

SAID = {
    signal.SIGTERM: (143, "holism: stopped by SIGTERM; the same command goes on where it stopped"),
    signal.SIGINT: (130, "holism: interrupted; the same command goes on where it stopped"),
}
PROGRESS = re.compile(r"(ingest|caption|train holism|train: index|demo world)(:| \d)")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose first stages have run."""
    config = write_project(tmp_path_factory.mktemp("project"), train=64, heldout=4)
    assert main(["ingest", str(config)]) == 0
    return config


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(so: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop(process: subprocess.Popen[str], number: signal.Signals, *, group: bool) -> tuple[int, str, list[int]]:
    """Its status, what it said after the signal (progress apart), and which of its processes are left."""
    children = family(process.pid)
    assert children
    (os.killpg if group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while (left := [child for child in children if alive(child)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = [line for line in said.splitlines() if line.strip() and not PROGRESS.match(line)]
    return process.returncode, "\n".join(lines), left


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)])
def test_a_stop_while_captions_are_written(project: Path, number: signal.Signals, group: bool) -> None:
    store = project.parent / "workspace" / "caption"
    process = start("caption", str(project), "--set", "caption.engine.fake.delay_seconds=60")
    until(lambda: list(store.rglob("_attempts/**/*.json")), process)
    assert stop(process, number, group=group) == (*SAID[number], [])
    assert not list(store.rglob("_attempts/**/*.json"))


def test_a_stop_while_an_engine_starts(project: Path) -> None:
    process = start("caption", str(project), "--set", "caption.engine.fake.start_seconds=60")
    until(lambda: family(process.pid), process)
    assert stop(process, signal.SIGTERM, group=False) == (*SAID[signal.SIGTERM], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_a_pool_starts_to_look_at_images(project: Path, tmp_path: Path, number: signal.Signals) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG", compress_level=0)
    for name in range(1500):
        (tmp_path / f"{name}.png").write_bytes(picture.getvalue() + str(name).encode())
    elsewhere = ["--set", f"workspace={tmp_path}/ws", "--set", f"ingest.source.path={tmp_path}"]
    large = ["--set", "ingest.workers=2", "--set", "ingest.shard_images=3000"]
    process = start("ingest", str(project), *elsewhere, *large)
    until(lambda: len(family(process.pid)) >= 3, process)
    assert stop(process, number, group=True) == (*SAID[number], [])


@pytest.mark.slow
def test_a_stop_while_a_model_is_trained(project: Path) -> None:
    assert main(["run", str(project), "--stages", "caption,curate"]) == 0
    process = start("train", str(project), "--set", "train.epochs=100000", "--set", "train.workers=1")
    metrics = project.parent / "workspace" / "train"
    until(lambda: list(metrics.rglob("metrics.jsonl")) and family(process.pid), process)
    assert stop(process, signal.SIGTERM, group=True) == (*SAID[signal.SIGTERM], [])


def test_a_second_signal_ends_at_once() -> None:
    program = """
import signal, time
from pipeline.stops import stoppable
with stoppable():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in ("ready\n", "cleaning up\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_handlers_are_kept_where_a_library_sets_its_own() -> None:
    with stoppable() as stopped:
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray does
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGTERM)
        assert stopped.status == 143
