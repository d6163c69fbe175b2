"""The server that `holism browse` runs: it takes the port, loads the tables and prints its address."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from captioning.browse.app import create_app
from captioning.browse.catalog import Catalog
from captioning.browse.gate import Rules
from captioning.browse.results import Find
from pipeline.errors import ConfigError
from pipeline.summary import counted
from pipeline.workspace import Workspace

FORCED_STOP_SECONDS = 5  # how long requests under way may take once the server is to stop


def serve(
    workspace: Workspace,
    find: Find,
    host: str = "127.0.0.1",
    port: int = 8808,
    allowed: Sequence[str] = (),
    extra_routes: Sequence[BaseRoute] = (),
) -> None:
    """Serve a workspace until interrupted. What is wrong with it, or with the address, is said before.

    `find` says which results to show. Beside loopback's names and `host` those `allowed` are answered.
    """
    with _listen(host, port) as listener:
        address, port = listener.getsockname()[:2]
        rules = Rules.of(host, address, port, allowed)
        app = create_app(workspace, find, rules, extra_routes)
        try:
            _introduce(app.state.catalog, workspace)
            _Server(app, _address(host, address, port, rules)).run(sockets=[listener])
        finally:
            app.state.catalog.close()


class _Server(uvicorn.Server):
    """Prints its address once it answers."""

    def __init__(self, app: Starlette, address: str) -> None:
        grace = FORCED_STOP_SECONDS
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=grace))
        self.address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"browse {self.address} (Ctrl+C stops)", flush=True)


def _introduce(catalog: Catalog, workspace: Workspace) -> None:
    """Load the tables, and say what there is to see."""
    print(f"reading the tables of {workspace.root} (about 10 s per million captions)", file=sys.stderr, flush=True)
    snapshot = catalog.current()
    for note in snapshot.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in ("images", "captions"))
    figures = snapshot.row(f"SELECT {counts}")
    print(
        f"{workspace.root}: {counted(figures['images'], 'image')}, {counted(figures['captions'], 'caption')}, "
        f"loaded in {snapshot.seconds:.1f} s",
        flush=True,
    )


def _address(host: str, address: str, port: int, rules: Rules) -> str:
    """The address of the browser, with its token if there is one; that comes with a warning."""
    name = socket.gethostname() if rules.any_address else host
    url = f"http://{name if ':' not in name else f'[{name}]'}:{port}"
    if rules.token is None:
        return url
    print(
        f"warning: listening on {address}, beyond this machine: anybody who has the address with its token can read "
        "the captions and see the pictures, and the connection is not encrypted",
        file=sys.stderr,
        flush=True,
    )
    return f"{url}/?token={rules.token}"


def _listen(host: str, port: int) -> socket.socket:
    """Take the port first, so that a port in use is one sentence and not a traceback of the server."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use by another program; stop that one, or choose another port, "
                f"for example --port {port + 1}"
            ) from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener
