"""One of the ranks that Ray Train starts: the stage as any rank runs it, in a thread of a worker of Ray."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from pipeline import stops
from pipeline.faults import outside_faults
from pipeline.messages import heard_by, say
from pipeline.stage import Outcome, StageRun

SECONDS = 0.5  # between calls of the desk
Work = Callable[[StageRun], Outcome]  # what a rank does with the stage's run


def train_rank(work: Work, run: StageRun, desk: Any, progress_seconds: float) -> Outcome | None:
    """The stage's outcome on the first rank; None on others, and after a stop. Ray Train has made the group."""
    from ray.train import get_context

    context = get_context()
    if context.get_world_rank() > 0:
        with heard_by(lambda _, __: None):
            _run(work, run)
        return None
    with _Line(desk) as line, heard_by(line.say, progress_seconds):
        count = context.get_world_size()
        say(f"train: starts on {count} Ray worker{'s' if count > 1 else ''}")
        return _run(work, run)


def _run(work: Work, run: StageRun) -> Outcome | None:
    try:
        with outside_faults():
            return work(run)
    except stops.StoppedError:
        return None


class _Line:
    """The first rank's line to the desk: takes there what it says, and brings a stop back."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._said: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._exchange, name="desk", daemon=True)

    def say(self, text: str, warning: bool) -> None:
        self._said.put((text, warning))

    def __enter__(self) -> "_Line":
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: object, ___: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _exchange(self) -> None:
        """Without a desk, Ray ends this process."""
        import ray

        with suppress(ray.exceptions.RayError):
            while True:
                last = self._ended.is_set()
                number = ray.get(self._desk.report.remote(self._waiting()))
                if number is not None:
                    stops.ask_threads(number)
                if last:
                    return
                self._ended.wait(SECONDS)

    def _waiting(self) -> list[tuple[str, bool]]:
        lines = []
        with suppress(Empty):
            while True:
                lines.append(self._said.get_nowait())
        return lines
