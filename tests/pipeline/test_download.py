"""One link against servers that behave badly: it ends in time, and says why in words."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.ingest.download import Limits, Opener
from pipeline.ingest.link_errors import LinkError
from pipeline.ingest.links import opened
from tests.pipeline.images import picture

JPEG = picture(0)
GZIPPED = {"Content-Encoding": "gzip"}
ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/gzip": (200, gzip.compress(JPEG), GZIPPED),
    "/bomb": (200, gzip.compress(b"x" * 3_000_000), GZIPPED),
    "/large": (200, JPEG, {"Content-Length": "99000000"}),
    "/short": (200, JPEG, {"Content-Length": str(len(JPEG) + 9)}),
    "/html": (200, b"\n<!DOCTYPE html><html>gone</html>", {"Content-Type": "image/jpeg"}),
    "/svg": (200, b"<?xml version='1.0'?><svg/>", {}),
    "/empty": (200, b"", {}),
    "/iri": (302, b"", {"Location": "/café x.jpg".encode().decode("latin-1")}),
    "/circle": (302, b"", {"Location": "/circle"}),
    "/file": (302, b"", {"Location": "file:///etc/passwd"}),
    "/ftp": (302, b"", {"Location": "ftp://h/x"}),
    "/caf%C3%A9%20x.jpg": (200, JPEG, {}),
}


class Handler(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with contextlib.suppress(OSError):
            if self.path.startswith("/status/"):
                self.reply(int(self.path[8:]), b"", {})
            elif self.path in ("/headers", "/body", "/endless", "/endless_redirect"):
                self.never_end()
            elif self.path == "/garbage":
                self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            elif self.path == "/login":
                self.reply(200 if self.headers["Authorization"] == "Basic bWU6cCB3" else 401, JPEG, {})
            elif self.path == "/recovers":
                self.reply(503 if self.asked.count(self.path) == 1 else 200, JPEG, {"Retry-After": "0"})
            elif self.path in ANSWERS:
                self.reply(*ANSWERS[self.path])

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def never_end(self) -> None:
        if self.path == "/headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        else:
            self.send_response(302 if "redirect" in self.path else 200)
            self.send_header("Location", "/caf%C3%A9%20x.jpg")
            self.end_headers()
        while True:
            if self.path in ("/headers", "/body"):
                time.sleep(0.02)
                self.wfile.write(b"x")
            else:
                self.wfile.write(b"x" * 65536)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def open_link(link: str, **limits: Any) -> bytes:
    allowed = Limits(**{"seconds": 20, "size": 2_000_000, "silence": 10, "retries": 0, **limits})
    opener = Opener(allowed, public_only=False, as_they_stand={})
    return bytes(opener.open(urllib.request.Request(opened(link))).read())


@pytest.mark.parametrize("path", ["/gzip", "/iri", "/endless_redirect"])
def test_pictures_that_come_in_an_odd_way(server: str, path: str) -> None:
    assert open_link(server + path) == JPEG


def test_a_login_in_a_link_is_used_as_browsers_do(server: str) -> None:
    assert open_link(server.replace("//", "//me:p w@") + "/login") == JPEG


def test_faults_that_may_pass_are_tried_again(server: str) -> None:
    assert open_link(f"{server}/recovers", retries=1) == JPEG
    Handler.asked.clear()
    with pytest.raises(LinkError, match="404"):
        open_link(f"{server}/status/404", retries=5)
    assert len(Handler.asked) == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/bomb", r"more than 2 MB \(ingest.source.link_megabytes\)"),
        ("/large", r"more than 2 MB"),
        ("/endless", r"more than 2 MB"),
        ("/short", "the server ended its answer too early"),
        ("/html", r"not an image: the server sent a web page \(HTML\) instead"),
        ("/svg", r"not an image: the server sent a drawing \(SVG\) instead"),
        ("/empty", "the server sent nothing"),
        ("/circle", "HTTP 302: the server redirects in a circle"),
        ("/file", "redirects to what is no web link"),
        ("/ftp", "redirects to what cannot be opened: refused: ftp:"),
        ("/garbage", "what the host answers is not HTTP"),
        ("/closes", "the server closed the connection without an answer"),
        ("/status/403", r"HTTP 403 \(Forbidden\): the server refuses access"),
        ("/status/404", r"HTTP 404 \(Not Found\): the server has no such picture"),
        ("/status/429", "too many requests; lower ingest.source.threads"),
        ("/status/503", "the server has a fault; run ingest with --retry-failed later"),
    ],
)
def test_reasons_are_words(server: str, path: str, reason: str) -> None:
    with pytest.raises(LinkError, match=reason):
        open_link(server + path)


@pytest.mark.parametrize("path", ["/headers", "/body"])
def test_a_server_that_trickles_is_given_up_in_time(server: str, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(LinkError, match=r"not complete after 0.3 s \(ingest.source.link_seconds\)"):
        open_link(server + path, seconds=0.3)
    assert time.monotonic() - began < 5


def test_hosts_that_are_not_there() -> None:
    with pytest.raises(LinkError, match="the host refuses connections"):
        open_link("http://127.0.0.1:1/a.jpg")
    with pytest.raises(LinkError, match=r"there is no host of this name|name server does not answer|HTTP \d"):
        open_link("http://name.invalid/a.jpg")
