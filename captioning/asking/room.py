"""Who may use an engine at a time: pieces of work together, as many as keep it full, or a suspect alone.

A piece of work ends slowly: its last long answers leave the engine half empty. So the next piece comes in while there
are still enough questions to keep the engine full, and not before, since unfinished work is lost if the engine dies.

Work that an engine died on is tried again, and must be alone with the engine then: otherwise another piece of work
could be what crashes it, and the wrong image would be quarantined.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENOUGH = 1.5  # open questions, as a multiple of those that the engine answers together


class Workload:
    """What one piece of work inside has still to ask."""

    def __init__(self, room: Room, left: int) -> None:
        self._room, self.left = room, left

    def expect(self, questions: int) -> None:
        """It is so many, as its images and cells say."""
        self._room.change_workload(self, questions - self.left)

    def answered(self, questions: int = 1) -> None:
        """So many less."""
        self._room.change_workload(self, -questions)


class Room:
    """Held together by many threads, or alone by one. Who waits to be alone goes before the others that wait."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside: list[Workload] = []
        self._alone = 0  # how many are alone inside, or want to be
        self._enough = 0.0

    @contextmanager
    def together(self, questions: int, at_once: int) -> Iterator[Workload]:
        """Come in with at most so many `questions`, once the others inside have too few left for an engine that
        answers `at_once` together."""
        self._enough = ENOUGH * at_once
        with self._entered(questions, lambda: not self._alone and self._is_low()) as workload:
            yield workload

    @contextmanager
    def alone(self) -> Iterator[Workload]:
        """Wait until all others have left, and keep them out."""
        with self._change:
            self._alone += 1
        try:
            with self._entered(0, lambda: not self._inside) as workload:
                yield workload
        finally:
            with self._change:
                self._alone -= 1
                self._change.notify_all()

    def change_workload(self, workload: Workload, questions: int) -> None:
        """A piece of work inside has so many questions more, or less."""
        with self._change:
            workload.left += questions
            if self._is_low():  # only then has anybody who waits a reason to look
                self._change.notify_all()

    def _is_low(self) -> bool:
        return not self._inside or sum(workload.left for workload in self._inside) < self._enough

    @contextmanager
    def _entered(self, questions: int, admits: Callable[[], bool]) -> Iterator[Workload]:
        workload = Workload(self, questions)
        with self._change:
            self._change.wait_for(admits)
            self._inside.append(workload)
        try:
            yield workload
        finally:
            with self._change:
                self._inside.remove(workload)
                self._change.notify_all()
