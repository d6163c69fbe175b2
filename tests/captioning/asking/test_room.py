"""Who is let in to an engine, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from captioning.asking.room import Room, Workload

AT_ONCE = 10  # so 15 questions are enough
SOON, LONG = 0.05, 10.0


class Visitor:
    """A piece of work in a thread of its own: waits, comes in, and leaves when it is told to."""

    def __init__(self, threads: ThreadPoolExecutor, door: Callable[[], AbstractContextManager[Workload]]) -> None:
        self.door, self.inside, self.leaves = door, threading.Event(), threading.Event()
        self.workload: Workload | None = None
        self.done = threads.submit(self._visit)

    def _visit(self) -> None:
        with self.door() as self.workload:
            self.inside.set()
            assert self.leaves.wait(LONG)

    def is_in(self) -> bool:
        """After as long as somebody who may come in takes."""
        return self.inside.wait(SOON)

    def enters(self) -> Workload:
        assert self.inside.wait(LONG)
        assert self.workload is not None
        return self.workload

    def leave(self) -> None:
        self.leaves.set()
        self.done.result(LONG)


Visit = Callable[[Callable[[], AbstractContextManager[Workload]]], Visitor]


@pytest.fixture
def visit() -> Iterator[Visit]:
    """Begin a visit; all visits end with the test."""
    made: list[Visitor] = []
    with ThreadPoolExecutor(8) as threads:

        def begin(door: Callable[[], AbstractContextManager[Workload]]) -> Visitor:
            made.append(Visitor(threads, door))
            return made[-1]

        yield begin
        for visitor in made:
            visitor.leaves.set()


def test_the_next_comes_in_when_few_questions_are_left(visit: Visit) -> None:
    room = Room()
    first = visit(lambda: room.together(40, AT_ONCE))
    workload = first.enters()
    second = visit(lambda: room.together(40, AT_ONCE))
    assert not second.is_in()
    workload.answered(25)  # 15 left: still enough
    assert not second.is_in()
    workload.answered()
    second.enters().answered(40)
    third = visit(lambda: room.together(40, AT_ONCE))  # 14 are left of the first, none of the second
    third.enters()
    first.leave()
    fourth = visit(lambda: room.together(40, AT_ONCE))
    assert not fourth.is_in()


def test_small_pieces_of_work_come_in_until_there_is_enough(visit: Visit) -> None:
    room = Room()
    visitors = [visit(lambda: room.together(4, AT_ONCE)) for _ in range(6)]
    deadline = time.monotonic() + LONG
    while sum(visitor.inside.is_set() for visitor in visitors) < 4 and time.monotonic() < deadline:
        time.sleep(SOON / 10)
    time.sleep(SOON)
    inside = [visitor for visitor in visitors if visitor.inside.is_set()]
    assert len(inside) == 4  # 12 questions were not enough, 16 are
    inside[0].leave()  # 12 again
    while sum(visitor.inside.is_set() for visitor in visitors) < 5 and time.monotonic() < deadline:
        time.sleep(SOON / 10)
    time.sleep(SOON)
    assert sum(visitor.inside.is_set() for visitor in visitors) == 5


def test_who_turns_out_to_have_few_questions_lets_the_next_in(visit: Visit) -> None:
    room = Room()
    workload = visit(lambda: room.together(40, AT_ONCE)).enters()
    second = visit(lambda: room.together(40, AT_ONCE))
    assert not second.is_in()
    workload.expect(14)
    second.enters()


def test_a_suspect_is_alone_and_goes_before_newcomers(visit: Visit) -> None:
    room = Room()
    first = visit(lambda: room.together(1, AT_ONCE))
    first.enters()
    suspect = visit(room.alone)
    assert not suspect.is_in()
    newcomer = visit(lambda: room.together(1, AT_ONCE))
    assert not newcomer.is_in()
    first.leave()
    suspect.enters()
    another = visit(room.alone)
    assert not newcomer.is_in()
    assert not another.is_in()
    suspect.leave()
    another.enters()
    assert not newcomer.is_in()
    another.leave()
    newcomer.enters()
