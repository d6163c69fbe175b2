"""An engine in a process of its own, so that whatever kills it (out of memory, a fault in a driver) leaves us alive.

This is the parent's side: it looks like any other engine. Requests about one image go to the child as one message with
the image's raw pixels; answers come back as many at a time as are there. `child_main` is the other side.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from captioning.config import EngineConfig
from captioning.engines.base import Answer, Engine, EngineDiedError, Request
from captioning.models import Model
from pipeline import errors

GRACE_SECONDS = 5.0  # that an engine has to end by itself
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from captioning.engines.child_main import main; main(int(sys.argv[1]))"
)
Failure = tuple[str, str]  # name and text of an exception


class ChildEngine:
    """The engine that `like` is an unstarted example of, in a child process.

    The child is a fresh interpreter, never a fork, in a session of its own: signals for us do not reach it. It ends
    when its pipe does, so it does not outlive this process.
    """

    def __init__(self, config: EngineConfig, model: Model, threads: int, like: Engine) -> None:
        self.name, self.version = like.name, like.version
        self.at_once, self.metered = like.at_once, like.metered
        self._arguments = (config, model, threads)
        self._ids = count()
        self._lock = threading.Lock()  # of what follows
        self._pending: dict[int, Future[Answer]] = {}
        self._dead: EngineDiedError | None = EngineDiedError("the engine is not running")
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the child; None unless it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child and wait until its engine is up. Raises `EngineDiedError` if it dies."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", CHILD, str(theirs.fileno()), json.dumps(sys.path)]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        self._pipe = Connection(os.dup(self._socket.fileno()))
        started: Future[None] = Future()
        self._reader = threading.Thread(target=self._read, args=(process, started), name="engine reader", daemon=True)
        with self._lock:  # `stop` finds all of it or nothing
            self._process, self._dead = process, None
            self._reader.start()
        threading.Thread(target=_reap, args=(process,), name="engine reaper", daemon=True).start()
        try:
            with suppress(OSError):  # its death is seen by the thread that reads
                self._pipe.send(self._arguments)
            started.result()
        except BaseException:
            self.stop()
            raise

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Send the questions, each image once."""
        pictures = {id(request.image): request.image for request in requests}
        places = {picture: place for place, picture in enumerate(pictures)}
        futures = {next(self._ids): Future[Answer]() for _ in requests}
        for future in futures.values():
            future.set_running_or_notify_cancel()  # nobody takes a question back that is with the child
        with self._lock:
            if self._dead is not None:
                return [_failed(self._dead) for _ in requests]
            self._pending |= futures
        fields = [
            (key, places[id(request.image)], request.image_id, request.prompt, request.max_tokens,
             request.temperature, request.top_p, request.seed, request.json_schema)
            for key, request in zip(futures, requests, strict=True)
        ]  # fmt: skip
        headers = [(picture.mode, picture.size) for picture in pictures.values()]
        pixels = [picture.tobytes() for picture in pictures.values()]
        with self._sending, suppress(OSError):  # as above
            self._pipe.send((fields, headers))
            for data in pixels:
                self._pipe.send_bytes(data)
        return list(futures.values())

    def stop(self) -> None:
        """End the child and wait for that."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)  # the child sees the end of its pipe
        try:
            process.wait(2 * GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill_group(process)
        self._reader.join()

    def _read(self, process: subprocess.Popen[bytes], started: Future[None]) -> None:
        """Hand answers out as they come; at the end of the pipe the child is dead."""
        pipe, own = self._pipe, self._socket
        with own, pipe:
            with suppress(EOFError, OSError):
                failure: Failure | None = pipe.recv()
                if failure is None:
                    started.set_result(None)
                else:
                    started.set_exception(_exception(*failure))
                while True:
                    self._hand_out(pipe.recv())
            status = process.wait()
        with self._lock:
            stopped = self._process is not process
            self._dead = reason = EngineDiedError("the engine was stopped" if stopped else _reason(status))
            left, self._pending = list(self._pending.values()), {}
        if not started.done():
            started.set_exception(reason)
        for future in left:
            future.set_exception(reason)

    def _hand_out(self, answers: Sequence[tuple[int, Answer | Failure]]) -> None:
        with self._lock:
            answered = [(self._pending.pop(key), answer) for key, answer in answers]
        for future, answer in answered:
            if isinstance(answer, Answer):
                future.set_result(answer)
            else:
                future.set_exception(_exception(*answer))


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the child, and end what it started: those might hold memory of the GPU, and our pipe."""
    process.wait()
    _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _failed(error: Exception) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_exception(error)
    return future


def _reason(status: int) -> str:
    """How the child ended, in words."""
    if status == -signal.SIGKILL:
        return "its process was killed (SIGKILL; often the machine was out of memory)"
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


def _exception(name: str, text: str) -> Exception:
    """The child's exception. Libraries' own become one of the same name: their packages need not be imported here."""
    if name == EngineDiedError.__name__:
        return EngineDiedError(text)
    known: Any = getattr(errors, name, None)
    return known(text) if known is not None else type(name, (Exception,), {})(text)
