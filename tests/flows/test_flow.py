"""The Prefect deployments, against one real local server started by `holism serve`."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.artifacts import prefix
from flows.cli import main
from flows.run import Session
from flows.stages import NAMES
from tests.flows.project import write_project

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, dict[str, str]]]:
    """A served project as users have it, with loader workers and Ray.

    Gives its configuration, the API's URL, and the environment of a client.
    """
    folder = tmp_path_factory.mktemp("served")
    config = write_project(folder, train=12, heldout=6, quick=False)
    config.write_text(config.read_text().replace("train:\n", "train:\n  evaluation: {every: 1}\n", 1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    inherited = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment = {**inherited, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
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


def _post(url: str, data: dict[str, Any] | None = None) -> bytes:
    request = urllib.request.Request(
        url, data=json.dumps(data or {}).encode(), headers={"Content-Type": "application/json"}
    )
    for seconds in (0, 1, 2, 4, 8):
        time.sleep(seconds)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # a busy machine takes its time
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = f"{url}: {error} {error.read().decode(errors='replace')}"
            if error.code < 500:  # otherwise it may be a database that is locked for a moment
                break
        except OSError as error:
            if isinstance(getattr(error, "reason", None), ConnectionRefusedError):  # nobody is there yet
                return b""
            said = f"{url}: {error!r}"
    raise AssertionError(said)


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
    own = prefix(Session.open(str(config)))
    for key in (
        "ingest-summary",
        "caption-samples",
        "curate-samples",
        "train-losses",
        "train-runs",
        "evaluate-headline",
    ):
        assert f'"{own}-{key}"' in artifacts
    logged = _post(f"{url}/logs/filter").decode()
    assert "ingest 12/12 images (100 %)" in logged, "progress is in Prefect's log"
    assert "caption: tokens: " in logged
    assert "train holism: step 1: demo_world/macro_accuracy" in logged, "the model is measured on the way"
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
    assert "Traceback" not in _post(f"{url}/logs/filter").decode()


def test_stages_are_a_choice(served: tuple[Path, str, dict[str, str]]) -> None:
    _, url, _ = served
    (full,) = [found for found in json.loads(_post(f"{url}/deployments/filter")) if found["name"] == "full"]
    stages = full["parameter_openapi_schema"]["properties"]["stages"]
    assert {"items": {"enum": list(NAMES), "type": "string"}, "type": "array"} in stages["anyOf"]


def test_a_cancelled_run_says_so_in_one_line(served: tuple[Path, str, dict[str, str]], tmp_path: Path) -> None:
    _, url, _ = served
    (full,) = [found for found in json.loads(_post(f"{url}/deployments/filter")) if found["name"] == "full"]
    overrides = [f"workspace={tmp_path}/ws", "caption.engine.fake.delay_seconds=60"]
    parameters = {**full["parameters"], "overrides": overrides}
    run = json.loads(_post(f"{url}/deployments/{full['id']}/create_flow_run", {"parameters": parameters}))
    _until(lambda: list(tmp_path.rglob("_attempts/**/*.json")))
    _post(f"{url}/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def state() -> str:
        with urllib.request.urlopen(f"{url}/flow_runs/{run['id']}", timeout=30) as answer:
            return str(json.load(answer)["state_type"])

    _until(lambda: state() != "CANCELLING")
    assert state() == "CANCELLED"
    wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
    _until(lambda: "stopped; the same run goes on" in _post(f"{url}/logs/filter", wanted).decode())
    lines = json.loads(_post(f"{url}/logs/filter", wanted))
    loud = [(line["level"], line["message"]) for line in lines if line["level"] > logging.INFO]
    assert loud == [(logging.WARNING, "Finished in state Cancelled('stopped; the same run goes on where it stopped')")]
    assert not list(tmp_path.rglob("_attempts/**/*.json"))


def _until(so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_configured_server_gets_the_deployments_and_stays(served: tuple[Path, str, dict[str, str]]) -> None:
    config, url, environment = served
    other = config.with_name("other.yaml")
    other.write_text(config.read_text())
    command = [sys.executable, "-m", "flows.cli", "serve", str(other)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        said = "".join(itertools.takewhile(lambda line: "Stop with" not in line, process.stdout))
        assert f"server at {url} has the deployments" in said
        assert f"export PREFECT_API_URL={url}\n" in said
        deadline = time.monotonic() + 60
        while _post(f"{url}/deployments/filter").decode().count(str(other)) < 6 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _post(f"{url}/deployments/count") == b"6"
        assert "server" not in _children(process.pid)
        cached = _run(environment, "ingest")
        assert cached.returncode == 0, cached.stdout + cached.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert _post(f"{url}/deployments/count") == b"6", "the server is not ours to stop"


def _children(pid: int) -> str:
    """The command lines of a process's children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for task in tasks for child in task.read_text().split()]
    return " ".join(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in children)


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_a_configured_server_that_does_not_answer_is_one_sentence(tmp_path: Path, where: str) -> None:
    config = write_project(tmp_path, train=2, heldout=2)
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
        if where == "profile":
            environment.pop("PREFECT_API_URL", None)
            (tmp_path / "profiles.toml").write_text(f'active = "far"\n[profiles.far]\nPREFECT_API_URL = "{url}"\n')
        else:
            environment["PREFECT_API_URL"] = url
        command = [sys.executable, "-m", "flows.cli", "serve", str(config)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"PREFECT_API_URL is {url}, but no Prefect server answers there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_stage_that_went_well_stays_so_if_its_artifacts_cannot_be_published(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import flow

    def publish(*_: object) -> None:
        raise ConnectionError("the server went away")

    monkeypatch.setattr(flow, "publish", publish)
    said = list[str]()
    monkeypatch.setattr(
        flow, "get_run_logger", lambda: SimpleNamespace(warning=lambda text, *values: said.append(text % values))
    )
    session = Session.open(str(finished))
    manifest = session.resolve()["train"].manifest
    assert manifest is not None
    flow._publish(session, manifest)
    assert said == ["train: its artifacts could not be published: the server went away"]
