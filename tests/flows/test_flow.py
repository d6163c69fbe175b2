"""The Prefect deployments, against one real local server started by `holism serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.stages import NAMES
from tests.flows.project import write_project

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, dict[str, str]]]:
    """A served project: its configuration, the API's URL, and the environment of a client."""
    folder = tmp_path_factory.mktemp("served")
    config = write_project(folder, train=12, heldout=6, workers=None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    log = (folder / "serve.log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", str(config), "--port", str(port)],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_for_deployments(url, process, folder / "serve.log")
        yield config, url, {**environment, "PREFECT_API_URL": url}
    finally:
        process.send_signal(signal.SIGTERM)  # as a service manager does
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _wait_for_deployments(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if _post(f"{url}/deployments/count") == b"6":
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def _post(url: str) -> bytes:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def _run(environment: dict[str, str], name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", f"holism/{name}", "--watch", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_full_and_each_single_stage_run_and_finish(served: tuple[Path, str, dict[str, str]]) -> None:
    config, url, environment = served
    full = _run(environment, "full")
    assert full.returncode == 0, full.stdout + full.stderr
    assert main(["plan", str(config)]) == 0
    artifacts = _post(f"{url}/artifacts/latest/filter").decode()
    for key in ("ingest-summary", "caption-samples", "curate-summary", "train-summary", "evaluate-report"):
        assert key in artifacts
    for name in NAMES:
        single = _run(environment, name)
        assert single.returncode == 0, single.stdout + single.stderr
    states = _post(f"{url}/task_runs/filter").decode()
    assert states.count('"state_name":"Cached"') == len(NAMES)


def test_a_wrong_setting_fails_the_run_with_one_sentence(served: tuple[Path, str, dict[str, str]]) -> None:
    _, url, environment = served
    failed = _run(environment, "ingest", "--param", 'overrides=["ingest.shrad_images=3"]')
    assert failed.returncode != 0
    runs = _post(f"{url}/flow_runs/filter").decode()
    assert "did you mean 'shard_images'" in runs
