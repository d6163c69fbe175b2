"""A thread that owns a model: the frame of engines that run one in this process.

Callers put requests into a queue and get futures. The thread loads the model, takes requests out as it has
room, and answers them. Models and their libraries see one thread only, whatever calls from outside.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from captioning.engines.base import Answer, EngineDiedError, Request

Asked = tuple[Request, Future[Answer]]


class EngineThread(ABC):
    """Subclasses load, step and unload; they answer by setting the futures that `take` hands out."""

    metered = False

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._waiting: deque[Asked] = deque()
        self._given: dict[int, Future[Answer]] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._dead: Exception | None = None

    @abstractmethod
    def _load(self) -> None:
        """Load the model, or raise `EngineError`."""

    @abstractmethod
    def _step(self) -> None:
        """Take in what there is room for, and get on with answering. Any error that escapes is the engine's death."""

    @abstractmethod
    def _busy(self) -> bool:
        """Whether there is something to get on with."""

    @abstractmethod
    def _unload(self) -> None:
        """Drop the model, in whatever state it is."""

    def start(self) -> None:
        """Load the model in its thread and wait for it."""
        loaded: Future[None] = Future()
        self._stopping, self._dead = False, None
        self._thread = threading.Thread(target=self._run, args=(loaded,), name="engine", daemon=True)
        self._thread.start()
        loaded.result()

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Queue requests, next to each other."""
        asked = [(request, Future[Answer]()) for request in requests]
        with self._arrived:
            if self._dead is not None or self._thread is None:
                for _, future in asked:
                    future.set_exception(self._dead or EngineDiedError("the engine is not running"))
            else:
                self._waiting.extend(asked)
                self._arrived.notify()
        return [future for _, future in asked]

    def stop(self) -> None:
        """End the thread and wait for it."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def take(self, most: int) -> list[Asked]:
        """At most so many of the waiting requests, in their order."""
        with self._arrived:
            popped = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        taken = [one for one in popped if _wanted(one[1])]
        self._given |= {id(future): future for _, future in taken}
        return taken

    def put_back(self, asked: Sequence[Asked]) -> None:
        """Let requests that were taken wait again, before all others."""
        for _, future in asked:
            self._given.pop(id(future), None)
        with self._arrived:
            self._waiting.extendleft(reversed(asked))

    def answer(self, future: Future[Answer], answer: Answer | Exception) -> None:
        """Give an answer, or the error of this one request."""
        self._given.pop(id(future), None)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _run(self, loaded: Future[None]) -> None:
        try:
            self._load()
        except BaseException as error:
            loaded.set_exception(error)
            self._finish(EngineDiedError("the engine did not start"))
            return
        loaded.set_result(None)
        reason: Exception = EngineDiedError("the engine was stopped")
        try:
            while self._wait():
                self._step()
        except Exception as error:
            reason = EngineDiedError(f"{type(error).__name__}: {error}")
        finally:
            self._finish(reason)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False if it is to stop."""
        with self._arrived:
            while not (self._stopping or self._waiting or self._busy()):
                self._arrived.wait()
            return not self._stopping

    def _finish(self, reason: Exception) -> None:
        with self._arrived:
            self._dead = reason
            left = [*self._given.values(), *(future for _, future in self._waiting)]
            self._waiting.clear()
            self._given.clear()
        for future in left:
            if _wanted(future):
                future.set_exception(reason)
        self._unload()


def _wanted(future: Future[Answer]) -> bool:
    """Whether somebody still waits for it; from here on nobody can cancel it."""
    return future.running() or future.set_running_or_notify_cancel()
