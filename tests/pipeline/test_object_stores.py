"""Locations and the lock on S3, served by moto on this machine, with faults put between."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import lock as lock_module
from pipeline.errors import ConfigError, StoreError, WorkspaceLockedError
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.moto_s3 import S3, forget_file_systems

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def s3(server: S3) -> Iterator[S3]:
    yield server
    server.fail = lambda _: None


@pytest.fixture
def root(s3: S3, tmp_path: Path) -> Location:
    return Location.of(f"s3://{s3.bucket}/{tmp_path.name}")


def test_a_location_on_s3_is_as_one_on_a_disk(root: Location) -> None:
    file = root / "a" / "b.bin"
    assert (file.exists(), root.is_dir(), list(root.files())) == (False, False, [])
    file.write(b"0123456789")
    assert (file.read(), file.size(), file.read_range(2, 3), root.is_dir()) == (b"0123456789", 10, b"234", True)
    assert [(found.uri, size) for found, size in root.files(recursive=True)] == [(file.uri, 10)]
    assert (root / "a" / "*.bin").glob() == [(file, False)]
    with file.open_arrow() as handle:
        assert handle.read() == b"0123456789"
    assert not file.create(b"other")
    assert (root / "new").create(b"mine")
    file.remove()
    file.remove()
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.read()


def test_what_others_write_is_seen_at_once(root: Location, s3: S3) -> None:
    (root / "a").write(b"x")
    assert [file.name for file, _ in root.files()] == ["a"]
    s3.client.put_object(Bucket=s3.bucket, Key=f"{root.name}/b", Body=b"y")
    assert [file.name for file, _ in root.files()] == ["a", "b"]
    assert (root / "b").exists()


def _in_child(uri: str, results: Any) -> None:
    results.put(Location.of(uri).read())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_have_a_file_system_of_their_own(root: Location, method: str) -> None:
    (root / "a").write(b"x")
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    child = context.Process(target=_in_child, args=((root / "a").uri, results))
    child.start()
    assert results.get(timeout=60) == b"x"
    child.join()


def test_requests_that_fail_for_a_moment_are_tried_again(root: Location, s3: S3) -> None:
    s3.fail = lambda _: 503 if s3.count % 2 else None  # every other one
    for number in range(2):
        (root / f"{number}").write(b"x")
    assert len(list(root.files())) == 2
    assert (root / "1").read() == b"x"


def test_what_a_store_does_not_do_is_one_sentence(root: Location, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Location.of("s3://no-such-bucket/x")
    for act in (lambda: missing.write(b"x"), lambda: Workspace(missing).require_store()):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket/x cannot be used: there is no such bucket"):
            act()
    Workspace(root).require_store()
    s3.fail = lambda _: 403
    with pytest.raises(StoreError, match=f"{root} may not be used with these credentials"):
        root.write(b"x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_file_systems()
    acts: list[Callable[[], object]] = [root.exists, root.read, root.is_dir, lambda: root.write(b"x"), root.remove]
    for act in (*acts, Workspace(root).require_store, lambda: Workspace(root).manifests("ingest")):
        with pytest.raises(StoreError, match=f"the store of {root}.* does not answer as it should"):
            act()
    forget_file_systems()


def test_missing_packages_and_unknown_schemes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"begin with foo:// are of no known kind; expected .* s3://"):
        Location.of("foo://x").exists()
    code = (
        "import sys; sys.modules['s3fs'] = None; from flows.cli import main\n"
        "print([main([command, sys.argv[1]]) for command in ('status', 'ingest')])"
    )
    config = tmp_path / "c.yaml"
    config.write_text("workspace: s3://bucket/x\ningest: {source: {kind: folder, path: /nowhere}}\n")
    done = subprocess.run([sys.executable, "-c", code, str(config)], capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2]\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "s3:// need a package that is missing; install it, the extra s3: uv pip install s3fs" in line


def test_of_several_runs_that_start_at_once_one_gets_the_workspace(root: Location) -> None:
    code = (
        "import sys, time, s3fs\nfrom pipeline.errors import WorkspaceLockedError\n"
        "from pipeline.workspace import Workspace\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n    with Workspace(sys.argv[1]).lock(): print('held', flush=True); time.sleep(3)\n"
        "except WorkspaceLockedError as error: print('refused')\n"
    )
    command = [sys.executable, "-c", code, root.uri]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    assert sorted(run.communicate()[0] for run in runs) == ["held\n", "refused\n", "refused\n"]


def test_a_claim_that_another_overwrote_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store without conditional writes: both write, and the later one stands."""
    space = Workspace(f"memory://{tmp_path.name}")
    other = {"pid": 7, "host": "other", "token": "x", "beat": time.time()}

    def written_over(_: float) -> None:
        (space.root / ".lock").write(json.dumps(other).encode())

    monkeypatch.setattr(lock_module.time, "sleep", written_over)
    with pytest.raises(WorkspaceLockedError, match="in use by process 7 on other"), space.lock():
        pytest.fail("two holders")
    assert json.loads((space.root / ".lock").read())["pid"] == 7


def test_a_takeover_that_another_overwrote_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace(f"memory://{tmp_path.name}")
    lock = space.root / ".lock"
    lock.write(json.dumps({"pid": 1, "host": "dead", "beat": 0}).encode())
    other, write = {"pid": 7, "host": "other", "token": "x", "beat": time.time()}, Location.write

    def written_over(self: Location, _: bytes) -> None:
        write(self, json.dumps(other).encode())

    monkeypatch.setattr(lock_module.time, "sleep", lambda _: None)
    monkeypatch.setattr(Location, "write", written_over)
    with pytest.raises(WorkspaceLockedError, match="in use by process 7 on other"), space.lock():
        pytest.fail("two holders")


def test_a_holder_whose_clock_is_behind_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.2)
    space = Workspace(f"memory://{tmp_path.name}")
    behind = threading.Event()

    def beat() -> None:
        while not behind.wait(0.05):
            (space.root / ".lock").write(json.dumps({"pid": 7, "beat": time.time() - 1000}).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    time.sleep(0.2)
    try:
        with pytest.raises(WorkspaceLockedError, match="process 7"), space.lock():
            pytest.fail("two holders")
    finally:
        behind.set()
        thread.join()


def test_the_heartbeat_survives_requests_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.2)
    space, write, failed = Workspace(f"memory://{tmp_path.name}"), Location.write, []

    def faulty(self: Location, data: bytes) -> None:
        if len(failed) < 3:
            failed.append(data)
            raise StoreError("503")
        write(self, data)

    with space.lock():
        monkeypatch.setattr(Location, "write", faulty)
        first = json.loads((space.root / ".lock").read())["beat"]
        time.sleep(1.2)
        assert len(failed) == 3
        assert json.loads((space.root / ".lock").read())["beat"] > first
        with pytest.raises(WorkspaceLockedError), space.lock():
            pytest.fail("two holders")


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Jobs in the background ignore Ctrl-C, which is how the loss of a lock reaches the main thread."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("loss", ["silent", "taken"])
def test_a_holder_that_lost_the_lock_stops_before_another_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.2)
    space = Workspace(f"memory://{tmp_path.name}")
    words = {"silent": "has not answered for", "taken": "process 7 on other has taken the workspace"}[loss]
    began = time.monotonic() + lock_module.SETTLE_SECONDS
    with pytest.raises(WorkspaceLockedError, match=words), space.lock():
        _lose(space.root / ".lock", monkeypatch, loss)
    assert time.monotonic() - began < lock_module.HEARTBEAT_SECONDS * lock_module.BEATS


def _lose(lock: Location, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    if loss == "silent":
        monkeypatch.setattr(Location, "write", _no_answer)
    else:
        lock.write(json.dumps({"pid": 7, "host": "other", "token": "x", "beat": time.time()}).encode())
    time.sleep(30)  # the work, which is woken from any wait


def _no_answer(*_: object) -> None:
    raise StoreError("no answer")


def test_a_forked_child_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, os, sys, time\nfrom pipeline.workspace import Workspace\n"
        "def live():\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "with Workspace(sys.argv[1]).lock():\n"
        "    multiprocessing.get_context('fork').Process(target=live).start()\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())  # which says it itself, so it runs
    try:
        with pytest.raises(WorkspaceLockedError, match=f"process {parent.pid}"), Workspace(str(tmp_path)).lock():
            pytest.fail("two holders")
        parent.kill()
        parent.wait()
        os.kill(child, 0)  # it is alive
        with Workspace(str(tmp_path)).lock():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
