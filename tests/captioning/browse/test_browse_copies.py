"""The caption browser's copies of captions on disk: they go when they are replaced, and with the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_workspace import caption, ingest, newest
from starlette.testclient import TestClient

from captioning.browse.app import create_app
from captioning.browse.scratch import PREFIX, Scratch
from pipeline.workspace import Workspace

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = ingest(tmp_path_factory.mktemp("copies"), images=12, shard_images=12)
    caption(made)
    return made


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a test and its processes."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_changed_manifest_leaves_one_copy(workspace: Workspace, temporary: Path) -> None:
    app = create_app(workspace, lambda: newest(workspace))
    client, catalog = TestClient(app, base_url="http://127.0.0.1"), app.state.catalog
    assert client.get("/").status_code == 200
    (before,) = temporary.rglob("*.duckdb")
    held = catalog.current()
    for _ in range(2):
        caption(workspace)
        catalog._looked = 0.0
        assert client.get("/").status_code == 200
    assert len([*temporary.rglob("*.duckdb")]) == 2, "the one in use, and the newest"
    assert held.row("SELECT count(*) AS n FROM captions")["n"] > 0
    del held
    (after,) = temporary.rglob("*.duckdb")
    assert after != before
    catalog.close()
    assert [*temporary.iterdir()] == []


def test_a_manifest_that_cannot_be_read_leaves_no_copy(tmp_path: Path, temporary: Path) -> None:
    workspace = ingest(tmp_path, images=3)
    manifest = workspace.manifests("ingest")[0]
    manifest.location(manifest.select("images/")[0]).write(b"not Parquet")
    app = create_app(workspace, lambda: newest(workspace))
    assert TestClient(app, base_url="http://127.0.0.1").get("/").status_code == 503
    assert [*temporary.rglob("*.duckdb*")] == []


SERVE = """
import sys
from captioning.browse.server import serve
from pipeline.stops import StoppedError, stoppable
from pipeline.workspace import Workspace
from small_workspace import newest
workspace = Workspace(sys.argv[1])
with stoppable() as stop:  # as the command line does
    try:
        serve(workspace, lambda: newest(workspace), port=0)
    except StoppedError:
        sys.exit(stop.status)
"""


def _start(workspace: Workspace) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(workspace.root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert process.stdout.readline().startswith("browse http://127.0.0.1:")
    return process


def test_signals_leave_no_copies_and_what_a_kill_leaves_goes_with_the_next(
    workspace: Workspace, temporary: Path
) -> None:
    running = Scratch()
    stopped, killed = _start(workspace), _start(workspace)
    for process, number in ((stopped, signal.SIGTERM), (killed, signal.SIGKILL)):
        process.send_signal(number)
        process.communicate(timeout=30)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert len([*temporary.rglob("*.duckdb")]) == 1, "the killed one's"
    following = Scratch()
    assert {*temporary.glob(f"{PREFIX}*")} == {running.folder, following.folder}
    running.close()
    following.close()
    assert [*temporary.iterdir()] == []
