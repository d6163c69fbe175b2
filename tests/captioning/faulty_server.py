"""A chat completions server that misbehaves as it is told, for tests of the engine that asks one."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "some/model"
LIMIT = 10.0  # seconds that it hangs at most
HANG, CLOSE = "hang", "close"  # what it may do instead of answering with a status
Reply = str | tuple[int, dict[str, str]]


class Server(ThreadingHTTPServer):
    """Answers with what it was asked, unless a reply is waiting in `replies` or `always` says otherwise."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: deque[Reply] = deque()
        self.always: Callable[[dict[str, Any]], Reply | None] = lambda _: None
        self.models: Any = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}
        self.version: str | None = "1.2.3"
        self.complete: Callable[[str], Any] = completion
        self.delay = 0.0
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: set[str | None] = set()
        self.now = self.most = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models, and the version."""
        self.server.keys.add(self.headers["Authorization"])
        if self.path == "/version" and self.server.version:
            self.send(200, {"version": self.server.version})
        elif self.path == "/v1/models" and isinstance(self.server.models, int):
            self.refuse(self.server.models, {})
        elif self.path == "/v1/models":
            self.send(200, self.server.models)
        else:
            self.refuse(404, {})

    def do_POST(self) -> None:
        """A question."""
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(body)
            server.times.append(time.monotonic())
            server.keys.add(self.headers["Authorization"])
            server.now += 1
            server.most = max(server.most, server.now)
            reply = server.replies.popleft() if server.replies else server.always(body)
        try:
            time.sleep(server.delay)
        finally:
            with server.lock:
                server.now -= 1
        if reply == HANG:
            server.released.wait(LIMIT)
        if isinstance(reply, str):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif reply is not None:
            self.refuse(*reply)
        else:
            self.send(200, server.complete(said(body)))

    def refuse(self, status: int, headers: dict[str, str]) -> None:
        """An error that gives the key away, as thoughtless servers do."""
        self.send(status, {"error": {"message": f"not with {self.headers['Authorization']}"}}, headers)

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        """A whole response; text goes out as HTML."""
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        kind = "text/html" if isinstance(content, str) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def said(body: dict[str, Any]) -> str:
    """What the server says to a question: the question, with white space that must survive."""
    return f"  {body['messages'][0]['content'][1]['text']}\n"


def completion(text: str | None) -> dict[str, Any]:
    """The JSON around an answer."""
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": MODEL,
        "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": 70, "completion_tokens": 7, "total_tokens": 77,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
    }  # fmt: skip
