"""The same work over Ray Data actors: the same rows, dead actors replaced, and clear words where it cannot run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from captioning.asking import attempts, job
from captioning.store import records
from pipeline.cluster.config import ClusterConfig
from pipeline.cluster.connection import connected
from pipeline.errors import EngineError, ScheduleError
from tests.captioning import world

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ON_RAY: dict[str, Any] = {"ray": {"actors": {"min": 2, "max": 2}}}
IMAGES, CELLS = 20, 3


def test_actors_write_what_one_process_writes(tmp_path: Path, ray_instance: None) -> None:
    alone, spread = world.workspace(tmp_path / "alone"), world.workspace(tmp_path / "spread")
    expected = world.content(world.caption(alone, world.config()), alone)
    slow = {"kind": "fake", "fake": {"delay_seconds": 0.1}}  # so that one actor cannot do it all
    manifest = world.caption(spread, world.config(engine=slow, **ON_RAY))
    assert world.content(manifest, spread) == expected
    assert manifest.counts["new_captions"] == IMAGES * CELLS


def test_both_nodes_of_a_cluster_work(tmp_path: Path, ray_instance: None) -> None:
    import ray

    alive = [node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"]]
    assert alive == [1.0, 1.0]  # room for one actor on each
    made = world.workspace(tmp_path, images=40)
    slow = {"kind": "fake", "fake": {"delay_seconds": 0.1}}
    manifest = world.caption(made, world.config(engine=slow, **ON_RAY))
    assert len({part.detail["worker"] for part in records(manifest)}) == 2


def test_a_pool_grows_while_work_is_waiting(tmp_path: Path, ray_instance: None) -> None:
    made = world.workspace(tmp_path, images=40)
    slow = {"kind": "fake", "fake": {"delay_seconds": 0.8}}  # longer than a second actor takes to start
    manifest = world.caption(made, world.config(engine=slow, ray={"actors": {"min": 1, "max": 2}}))
    assert len({part.detail["worker"] for part in records(manifest)}) == 2


def test_poison_kills_actors_and_still_the_run_completes(tmp_path: Path, ray_instance: None) -> None:
    made = world.workspace(tmp_path)
    poison = world.image_ids(made)[5]
    engine = {"kind": "fake", "fake": {"die_on": [poison]}}
    manifest = world.caption(made, world.config(engine=engine, **ON_RAY))
    bad = [row for row in world.rows(manifest, made) if row["status"] == "error"]
    assert [row["image_id"] for row in bad] == [poison] * CELLS
    assert manifest.counts["captions"] == (IMAGES - 1) * CELLS


def test_an_actor_that_dies_once_leaves_no_trace(tmp_path: Path, ray_instance: None) -> None:
    quiet, made = world.workspace(tmp_path / "quiet"), world.workspace(tmp_path / "killed")
    expected = world.content(world.caption(quiet, world.config()), quiet)
    engine = {"kind": "fake", "fake": {"die_at_call": 3, "ledger": str(tmp_path / "ledger")}}
    manifest = world.caption(made, world.config(engine=engine, **ON_RAY))
    assert len({part.detail["worker"] for part in records(manifest)}) > 1
    assert any(
        "started again, the last time with: the process of its actor ended" in text for text in manifest.warnings
    )
    assert world.content(manifest, made) == expected


def test_an_engine_that_always_kills_its_actor_stops_the_run(tmp_path: Path, ray_instance: None) -> None:
    made = world.workspace(tmp_path, images=8)
    engine = {"kind": "fake", "fake": {"die_on": ["probe"]}}
    with pytest.raises(EngineError, match=r"died 3 times while it started, .* the process of its actor ended"):
        world.caption(made, world.config(engine=engine, **ON_RAY))
    assert attempts.notes(made.folder("caption")) == {}


class GivenUp:
    """An actor that somebody ends for good at its first item."""

    def __init__(self, _: Any) -> None:
        pass

    def __call__(self, item: Any) -> Any:
        import ray

        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
        time.sleep(60)


def test_actors_that_somebody_ends_for_good_are_named_in_one_sentence(
    tmp_path: Path, ray_instance: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import cloudpickle

    made = world.workspace(tmp_path, images=8)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    monkeypatch.setattr(job, "_worker", GivenUp)
    try:
        with pytest.raises(ScheduleError, match=r"Ray stopped restarting the caption actors .* it goes on from here"):
            world.caption(made, world.config(ray={"actors": {"min": 1, "max": 1}}))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    monkeypatch.undo()
    assert world.caption(made, world.config(ray={"enabled": False})).counts["captions"] == 8 * CELLS


def test_actors_that_do_not_fit_are_an_error_in_time(tmp_path: Path, ray_instance: None) -> None:
    made = world.workspace(tmp_path, images=8)
    started = time.monotonic()
    with pytest.raises(ScheduleError, match=r"1 caption actors with 64 CPU each .* has 2 CPU"):
        world.caption(made, world.config(ray={"actors": {"cpus": 64}}), cluster=ClusterConfig(schedule_seconds=3))
    assert time.monotonic() - started < 30


def test_an_engine_that_does_not_start_is_said_once(tmp_path: Path, ray_instance: None) -> None:
    made = world.workspace(tmp_path, images=8)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "no_such_type"}')
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EngineError, match=r"model folder .* does not load"):
        world.caption(made, world.config(engine={"kind": "transformers"}, models=[str(folder)], **ON_RAY))


def test_an_address_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for config, address in ((ClusterConfig(address="127.0.0.1:9"), None), (ClusterConfig(), "ray://127.0.0.1:9")):
        if address:
            monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ScheduleError, match=r"no Ray cluster answers at '.*127\.0\.0\.1:9'"), connected(config):
            pass


CONNECT = """
import sys
from pipeline.cluster.config import ClusterConfig
from pipeline.cluster.connection import connected
from pipeline.errors import ScheduleError
try:
    with connected(ClusterConfig(address=sys.argv[1], token_path=sys.argv[2] or None)):
        print("connected")
except ScheduleError as error:
    print(error)
"""


def test_a_cluster_that_asks_for_a_token_says_so(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    file = tmp_path / "token"
    file.write_text("0123456789abcdef0123456789abcdef")
    right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        port, client_port = (probe.getsockname()[1] for probe in (one, other))
    folder = tempfile.mkdtemp(prefix="ray-")  # a short path: Ray has sockets in it
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"),
            *(f"--port={port}", f"--ray-client-server-port={client_port}", f"--temp-dir={folder}"),
            *("--include-dashboard=false", "--disable-usage-stats"),
        ],
        env={**os.environ, **right},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for given, token, expected in (
            (right, None, "connected"),
            ({}, file, "connected"),
            (right | {"RAY_AUTH_TOKEN": "f" * 32}, None, "asks for a token.*or RAY_AUTH_MODE=token"),
            ({"HOME": str(tmp_path)}, None, "asks for a token.*set ray.token_path.*RAY_AUTH_TOKEN_PATH"),
        ):
            assert re.search(expected, _connect(f"127.0.0.1:{port}", given, token))
    finally:
        head.terminate()
        head.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str, environment: dict[str, str], token: Path | None) -> str:
    """What is said, once there is somebody to say something."""
    deadline = time.monotonic() + 60
    said = "no Ray cluster answers"
    while said.startswith("no Ray cluster answers") and time.monotonic() < deadline:
        command = [sys.executable, "-c", CONNECT, address, str(token or "")]
        said = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=90, check=False
        ).stdout
    return said
