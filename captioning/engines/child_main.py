"""The child's side of `child`: an engine that serves the process that started it, and ends with it."""

from __future__ import annotations

import os
import queue
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from captioning.engines import choose
from captioning.engines.base import Answer, Engine, Request
from captioning.engines.child import GRACE_SECONDS, Failure

THREADS = 8  # that unpack pictures and hand them to the engine: as many as callers ask at a time

_outgoing: queue.SimpleQueue[tuple[int, Answer | Failure]] = queue.SimpleQueue()


def main(file: int) -> NoReturn:
    """Serve until the pipe ends. Stops are the parent's business."""
    os.set_inheritable(file, False)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    pipe, threads = Connection(file), ThreadPoolExecutor(THREADS)
    engine: Engine | None = None
    try:
        engine = choose.make(*pipe.recv())
        threading.Thread(target=_start, args=(engine, pipe), daemon=True).start()
        while True:
            fields, headers = pipe.recv()
            threads.submit(_submit, engine, fields, headers, [pipe.recv_bytes() for _ in headers])
    except (EOFError, OSError):
        _end(engine)


def _start(engine: Engine, pipe: Connection) -> None:
    """Load, say how that went; from then on send answers."""
    try:
        engine.start()
    except Exception as error:
        pipe.send(_failure(error))
        return
    pipe.send(None)
    _send(pipe)


def _send(pipe: Connection) -> None:
    """Send what there is, in as few messages as the parent reads quickly."""
    try:
        while True:
            answers = [_outgoing.get()]
            while not _outgoing.empty():
                answers.append(_outgoing.get())
            pipe.send(answers)
    except OSError:
        return  # the parent is gone: the reading thread ends this process


def _submit(engine: Engine, fields: list[Any], headers: list[Any], pixels: list[bytes]) -> None:
    from PIL import Image

    try:
        pictures = [Image.frombytes(*header, data) for header, data in zip(headers, pixels, strict=True)]
        futures = engine.submit([Request(pictures[place], *rest) for _, place, *rest in fields])
    except Exception as error:
        for key, *_ in fields:
            _outgoing.put((key, _failure(error)))
        return
    for (key, *_), future in zip(fields, futures, strict=True):
        future.add_done_callback(partial(_answered, key))


def _answered(key: int, future: Future[Answer]) -> None:
    error = future.exception()
    _outgoing.put((key, future.result() if error is None else _failure(error)))


def _failure(error: BaseException) -> Failure:
    return type(error).__name__, str(error)


def _end(engine: Engine | None) -> NoReturn:
    """Release the engine; whatever it does, this process and all that it started are soon gone."""
    timer = threading.Timer(GRACE_SECONDS, _kill)
    timer.daemon = True
    timer.start()
    try:
        if engine is not None:
            engine.stop()
    finally:
        _kill()


def _kill() -> NoReturn:
    os.killpg(os.getpgid(0), signal.SIGKILL)
    raise AssertionError("a process survived SIGKILL")
