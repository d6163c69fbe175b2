"""The workspace: manifests by fingerprint, a lock that names its holder and outlives no one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import lock as module
from pipeline.commits import Part
from pipeline.errors import ConfigError, StoreError, WorkspaceLockedError
from pipeline.manifest import Manifest
from pipeline.storage import Location
from pipeline.workspace import Workspace

HOLD = """
import sys
from pipeline.workspace import Workspace
with Workspace(sys.argv[1]).lock(wait=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read(1)
"""


def holder(root: Path | str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def held(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == b"held\n"


def manifest(store: str, stage: str = "caption", created_at: str = "2026-01-01") -> Manifest:
    part = Part("a.parquet", 2, 0, 10, "d" * 32, ("cell",), 0.5, {"shard": "0"})
    return Manifest(
        stage, "f" * 32, 1, {"x": [1]}, {"ingest": "0"}, store, (part,), {"n": 2}, {}, ("look",), created_at
    )


@pytest.fixture(params=["local", "memory"])
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "ws") if request.param == "local" else f"memory://{tmp_path.name}")


def test_a_saved_manifest_comes_back_equal(space: Workspace) -> None:
    saved = manifest((space.folder("caption") / "sub").uri)
    assert space.manifest("caption", saved.fingerprint) is None
    space.save(saved)
    assert space.manifest("caption", saved.fingerprint) == saved
    assert space.manifest("curate", saved.fingerprint) is None
    assert saved.location(saved.parts[0]) == space.folder("caption") / "sub" / "a.parquet"


def test_manifests_are_listed_newest_first(space: Workspace) -> None:
    for day in (2, 3, 1):
        one = manifest(space.folder("caption").uri, created_at=f"2026-01-0{day}")
        space.save(replace(one, fingerprint=f"{day:032d}"))
    assert [found.created_at[-1] for found in space.manifests("caption")] == ["3", "2", "1"]
    assert space.manifests("train") == []


def test_a_workspace_can_be_moved(tmp_path: Path) -> None:
    space = Workspace(str(tmp_path / "old"))
    space.save(manifest(space.folder("caption").uri))
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = Workspace(str(tmp_path / "new")).manifest("caption", "f" * 32)
    assert moved is not None
    assert moved.store == str(tmp_path / "new" / "caption")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: '"x"',
        lambda text: text.replace('"rows": 2', '"lines": 2'),
        lambda text: text.replace("a.parquet", "b.parquet"),  # valid, and not what its digest names
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "parts"}),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, damage: object) -> None:
    space = Workspace(str(tmp_path / "ws"))
    space.save(manifest(space.folder("caption").uri))
    path = next((tmp_path / "ws" / "manifests").iterdir())
    path.write_text(damage(path.read_text()))
    with pytest.raises(
        StoreError, match=rf"the manifest .*{path.name} is damaged .*delete it and run the stage again"
    ):
        space.manifest("caption", "f" * 32)


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "ws").write_text("x")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        Workspace(str(tmp_path / "ws"))


def test_a_living_holder_is_named(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert held(process)
    with (
        pytest.raises(
            WorkspaceLockedError,
            match=rf"in use by process {process.pid} on {module.socket.gethostname()}, started 20",
        ),
        Workspace(str(tmp_path)).lock(),
    ):
        pytest.fail("two holders")
    process.communicate(b"x")
    with Workspace(str(tmp_path)).lock():
        pass


def test_a_dead_holder_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert held(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Workspace(str(tmp_path)).lock():
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_waiting_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    with Workspace(str(tmp_path)).lock():
        process = holder(tmp_path, "--wait")
        time.sleep(1.0)
        assert process.poll() is None
    assert held(process)
    process.communicate(b"x")
    assert process.returncode == 0


def test_the_lock_is_free_after_an_error(space: Workspace) -> None:
    with pytest.raises(KeyError), space.lock():
        raise KeyError
    with space.lock():
        pass


def test_a_remote_holder_is_named_and_a_silent_one_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = Workspace(f"memory://{tmp_path.name}")
    lock = space.root / ".lock"
    with space.lock():
        with pytest.raises(WorkspaceLockedError, match=f"in use by process {os.getpid()} on"), space.lock():
            pytest.fail("two holders")
        assert lock.exists()
    assert not lock.exists()
    lock.write(json.dumps({"pid": 1, "host": "gone", "beat": time.time() - 1000}).encode())
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    with space.lock():
        assert "process 1 on gone holds the workspace and seems dead" in capsys.readouterr().err
        assert json.loads(lock.read())["pid"] == os.getpid()


def test_a_remote_holder_that_lost_the_lock_does_not_take_it_from_the_next(tmp_path: Path) -> None:
    space = Workspace(f"memory://{tmp_path.name}")
    lock = space.root / ".lock"
    other = json.dumps({"pid": 1, "host": "other", "beat": time.time()}).encode()
    with space.lock():
        lock.write(other)
    assert lock.read() == other


def test_of_two_that_claim_a_remote_workspace_at_once_one_gets_it(tmp_path: Path) -> None:
    space, results = Workspace(f"memory://{tmp_path.name}"), []

    def claim() -> None:
        try:
            with space.lock():
                time.sleep(1.5)
                results.append("held")
        except WorkspaceLockedError:
            results.append("refused")

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["held", "refused", "refused"]


def test_a_remote_holder_goes_on_beating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    space = Workspace(f"memory://{tmp_path.name}")
    with space.lock():
        first = json.loads((space.root / ".lock").read())["beat"]
        time.sleep(1.4)  # longer than six beats
        assert json.loads((space.root / ".lock").read())["beat"] > first
        with pytest.raises(WorkspaceLockedError), space.lock():
            pytest.fail("a beating holder was taken for dead")


def test_locations_of_stages(space: Workspace) -> None:
    assert space.folder("train") == Location.of(f"{space.root}/train")
