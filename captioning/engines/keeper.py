"""Keeps one engine running: started with the first question, and again after a death, but not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from captioning.engines.base import Engine, EngineDiedError, probe
from pipeline.errors import EngineError

STARTS = 3  # that may fail one after the other
HOPELESS = 8  # deaths without one answer in between: then it is not the images
STOPPED = "the run was stopped"
STOP_SECONDS = 0.2


def does_not_start(reason: str) -> EngineError:
    """What to say of an engine that always dies before it can be asked anything."""
    return EngineError(
        f"the engine died {STARTS} times while it started, the last time because {reason}; see that the model fits "
        "into memory and that the engine runs on this machine at all"
    )


class EngineKeeper:
    """Threads share it. An engine that dies while it starts, or at the probe that belongs to it, is started again.

    Each start happens within `starting()`; `last_death` is that of an engine before this keeper's first.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        starting: Callable[[], AbstractContextManager[None]] = nullcontext,
        last_death: str | None = None,
    ) -> None:
        self._make, self._noted = make, starting
        self._lock = threading.Lock()  # of all that follows; never held while an engine starts, so `stop` can come
        self._engine: Engine | None = None
        self._started = self._stopped = False
        self._deaths = 0
        self._last_death = last_death
        self._starting = threading.Lock()

    def engine(self) -> Engine:
        """The engine, perhaps not started. Raises `EngineError` after `stop`."""
        with self._lock:
            if self._stopped:
                raise EngineError(STOPPED)
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    def running(self) -> Engine:
        """The engine, started. Raises `EngineError` if it does not start, or dies of that again and again."""
        with self._starting:
            engine = self.engine()
            if not self._started:
                self._start(engine)
            return engine

    def remove(self, engine: Engine, error: Exception) -> None:
        """Take a dead engine away, once, however many threads see it. Raises `EngineError` after too many deaths."""
        with self._lock:
            if self._stopped:
                raise EngineError(STOPPED)
            if self._engine is engine:
                self._engine, self._started = None, False
                self._deaths += 1
                self._last_death = str(error)
            if self._deaths >= HOPELESS:
                raise EngineError(f"the engine died {self._deaths} times without one answer in between: {error}")
        engine.stop()

    def answered(self) -> None:
        """The engine is of use: deaths before this need not be its habit."""
        self._deaths = 0

    def take_last_death(self) -> str | None:
        """Why the engine died, if it did since this was last asked."""
        death, self._last_death = self._last_death, None
        return death

    def stop(self) -> None:
        """Release the engine for good, even one that is starting."""
        with self._lock:
            self._stopped = True
            engine, self._engine, self._started = self._engine, None, False
        if engine is not None:
            engine.stop()
            while not self._starting.acquire(timeout=STOP_SECONDS):  # it starts, and had nothing to stop a moment ago
                engine.stop()
            self._starting.release()

    def _start(self, engine: Engine) -> None:
        for start in range(1, STARTS + 1):
            try:
                with self._noted():
                    engine.start()
                    probe(engine)
            except EngineDiedError as error:
                if self._stopped:
                    raise EngineError(STOPPED) from error
                engine.stop()
                if start == STARTS:
                    raise does_not_start(str(error)) from error
            else:
                break
        with self._lock:
            if not self._stopped:
                self._started = True
                return
        engine.stop()  # the run was stopped in the meantime
        raise EngineError(STOPPED)
