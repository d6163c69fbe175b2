"""A server on this machine whose pages tests change, and lists of links to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Site:
    """A server whose pages can be changed; it counts what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked[self.path] += 1
                if self.path.startswith("/slow"):
                    time.sleep(8)
                if self.path.startswith("/drip"):
                    self.drip()
                    return
                if self.path in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[self.path])
                    self.end_headers()
                elif self.path in site.pages:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(site.pages[self.path])
                else:
                    self.send_error(404)

            def drip(self) -> None:
                """A byte every now and then, each in time."""
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(b"x")
                        time.sleep(0.2)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"


def url_list(path: Path, given: list[str | None], texts: list[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"url": given, "caption": texts or [None] * len(given)}), path)
    return path


def links(path: Path, **settings: Any) -> dict[str, Any]:
    return {
        "kind": "urls",
        "path": str(path),
        "allow_private_addresses": True,
        "timeout": 3,
        "retries": 0,
        "threads": 4,
        **settings,
    }
