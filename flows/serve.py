"""The deployments, served to the Prefect server that is configured, or to a local one started for them.

holism serve configs/demo.yaml        then, in another shell:
export PREFECT_API_URL=http://127.0.0.1:4200/api
prefect deployment run holism/full --watch
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.run import Session
from flows.stages import NAMES
from pipeline.errors import ConfigError, EngineError
from pipeline.presentable import presentable

START_SECONDS = 180.0  # usually 15; a busy laptop takes its time


def serve(session: Session, host: str, port: int) -> None:
    """Serve the deployments until interrupted.

    They go to the server that PREFECT_API_URL names (in the environment or in Prefect's profile). If none is named, a
    server is started on `host`:`port` and ends with the deployments.
    """
    _quiet_prefect()
    url = _configured_url()
    if url is not None:
        _check_answers(url)
        _serve_deployments(session, url, f"The Prefect server at {url} has the deployments (PREFECT_API_URL is set)")
        return
    url = f"http://{host}:{port}/api"
    _check_port(host, port, url)
    _point_prefect_at(url)
    with _server(host, port, url):
        _serve_deployments(session, url, f"Prefect runs at http://{host}:{port}")


def _serve_deployments(session: Session, url: str, where: str) -> None:
    from prefect import serve as serve_deployments

    from flows.flow import holism

    config = str(Path(session.path).resolve())
    presets: dict[str, list[str] | None] = {"full": None, **{name: [name] for name in NAMES}}
    deployments = [
        holism.to_deployment(
            name=name,
            parameters={"config": config, "stages": stages, "overrides": list(session.overrides)},
            description=f"the stage {name}" if stages else "all stages: " + " → ".join(NAMES),
        )
        for name, stages in presets.items()
    ]
    print(
        f"{presentable(where)}; in another shell:\n\n"
        f"  export PREFECT_API_URL={presentable(url)}\n"
        f"  prefect deployment run holism/full --watch\n\n"
        f"Deployments: {', '.join(f'holism/{name}' for name in presets)}. Stop with Ctrl-C.",
        flush=True,
    )
    serve_deployments(*deployments, print_starting_message=False)


def _quiet_prefect() -> None:
    """Telemetry of this process and its children stays off unless somebody asked for it."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def _configured_url() -> str | None:
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return str(url) if url else None


def _point_prefect_at(url: str) -> None:
    """Give this process and its children the address of the server; Prefect has read its settings before."""
    from prefect.context import refresh_global_settings_context

    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()


def _check_answers(url: str) -> None:
    """Ask the configured server something that needs its key, where it has one."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.read_deployments(limit=1)
    except Exception as error:  # of httpx, TLS, Prefect or pydantic (another version's answer)
        raise ConfigError(
            f"PREFECT_API_URL is {url}, but no Prefect server answers there as it should ({_first_line(error)}); "
            "start or mend it, or unset PREFECT_API_URL (also in Prefect's profile) to have a server started here"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_port(host: str, port: int, url: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror
        else:
            return
    who = "a Prefect server already answers there" if _healthy(url) else f"another program has it ({reason})"
    raise ConfigError(f"port {port} on {host} cannot be used: {who}; stop it, or choose another: --port {port + 1}")


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


@contextmanager
def _server(host: str, port: int, url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    # A session of its own: Ctrl-C reaches the runner first, which still has things to tell the server.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _healthy(url):
            if process.poll() is not None:
                raise EngineError(
                    f"the Prefect server ended with status {process.returncode}; see why: {' '.join(command[1:])}"
                )
            if time.monotonic() > deadline:
                raise EngineError(f"the Prefect server did not answer at {url} within {START_SECONDS:.0f} s")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
