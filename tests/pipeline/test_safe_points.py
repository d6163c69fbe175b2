"""Stops at bad moments: in the middle of the standard library's work, in a finalizer, just before a wait."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import safe_points
from pipeline.stops import StoppedError, held_back, stoppable


def library(code: str, **names: Any) -> Callable[[], Any]:
    """A function `work` as if it belonged to the standard library."""
    space: dict[str, Any] = {"__name__": "threading", "os": os, "signal": signal, "time": time, **names}
    exec(code, space)
    return space["work"]


def test_the_standard_library_is_not_left_in_the_middle() -> None:
    done: list[str] = []
    work = library("def work():\n  signal.raise_signal(signal.SIGTERM)\n  done.append('all')", done=done)
    with stoppable() as stop:
        work()
        assert stop.signal == signal.SIGTERM  # what is raised from now on is a consequence
        with pytest.raises(StoppedError):
            time.sleep(10)
    assert done == ["all"]


def test_a_wait_in_the_standard_library_is_left_at_once() -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with stoppable(), pytest.raises(StoppedError):
        threading.Event().wait(30)
    assert time.monotonic() - began < 10


def test_the_standard_library_may_not_hold_a_stop_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_points, "LOOKS", 5)
    busy = "def work():\n  signal.raise_signal(signal.SIGTERM)\n  end = time.monotonic() + 20\n"
    busy += "  while time.monotonic() < end:\n    for _ in range(999): pass\n"
    began = time.monotonic()
    with stoppable(), pytest.raises(StoppedError):
        library(busy)()
    assert time.monotonic() - began < 10


def test_a_signal_that_woke_nobody_is_heard() -> None:
    """As when it comes just before the main thread waits: Python notes it, and nothing tells the main thread."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # so the signal goes to the timer's thread
    began = time.monotonic()
    try:
        with stoppable(), pytest.raises(StoppedError):
            threading.Event().wait(30)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert time.monotonic() - began < 10


def test_what_a_finalizer_swallows_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Ending:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with stoppable():
        Ending()
        with pytest.raises(StoppedError):
            time.sleep(10)
    assert capsys.readouterr().err == ""


def test_errors_of_other_finalizers_are_said_as_before() -> None:
    said: list[Any] = []

    class Ending:
        def __del__(self) -> None:
            raise ValueError("mine")

    hook = sys.unraisablehook
    sys.unraisablehook = said.append
    try:
        with stoppable():
            Ending()
    finally:
        sys.unraisablehook = hook
    assert [str(one.exc_value) for one in said] == ["mine"]


def test_an_inner_handler_passes_nudges_on() -> None:
    work = library("def work():\n  signal.raise_signal(signal.SIGTERM)\n  return time.monotonic()")

    def nested() -> None:
        work()
        with stoppable():
            threading.Event().wait(30)

    began = time.monotonic()
    with stoppable(), pytest.raises(StoppedError):
        nested()
    assert time.monotonic() - began < 10


def test_a_consequence_that_was_seen_is_all_that_is_raised() -> None:
    work = library("def work():\n  signal.raise_signal(signal.SIGTERM)\n  raise ValueError")
    with stoppable() as stop:
        with pytest.raises(ValueError):
            work()
        stop.settle()
        time.sleep(0.2)
        assert stop.status == 143


def test_what_was_swallowed_can_be_held_back() -> None:
    class Ending:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def train() -> None:
        with held_back() as held:
            assert held.signal == signal.SIGTERM
            time.sleep(0.2)
            done.append("all")

    done: list[str] = []
    with stoppable():
        Ending()
        with pytest.raises(StoppedError):
            train()
    assert done == ["all"]


def test_a_stop_that_waits_is_held_back_where_others_are() -> None:
    work = library("def work():\n  signal.raise_signal(signal.SIGTERM)")

    def train() -> None:
        work()
        with held_back() as held:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
            assert held.signal == signal.SIGTERM
            done.append("all")

    done: list[str] = []
    with stoppable(), pytest.raises(StoppedError):
        train()
    assert done == ["all"]


FORKS = """
import os, signal, time
from pipeline.stops import StoppedError, stoppable

space = {"__name__": "threading", "os": os, "signal": signal, "time": time}
exec('''
def stop_here():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

def fork_while_a_stop_waits():
    signal.raise_signal(signal.SIGTERM)
    return os.fork()
''', space)

def end_stopped():
    try:
        space["stop_here"]()
    except StoppedError:
        os._exit(7)
    os._exit(8)

children = []
try:
    with stoppable():
        children.append(os.fork() or end_stopped())
        children.append(space["fork_while_a_stop_waits"]() or end_stopped())
        time.sleep(10)
except StoppedError:
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_a_forked_process_is_stopped_at_once() -> None:
    """Nothing makes its main thread look a second time."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[7, 7]\n", "")


def test_all_is_put_back() -> None:
    before = (signal.getsignal(signal.SIGTERM), signal.getsignal(safe_points.NUDGE), sys.unraisablehook)
    with stoppable():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(safe_points.NUDGE), sys.unraisablehook) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_queues_are_whole_after_a_stop() -> None:
    """Their lock is taken often here, and never for long."""

    def work(channel: queue.Queue[int]) -> None:
        while True:
            channel.put(1)
            sum(range(channel.get() + 100))

    for _ in range(30):
        channel: queue.Queue[int] = queue.Queue()
        timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with stoppable(), pytest.raises(StoppedError):
            work(channel)
        assert channel.mutex.acquire(blocking=False)
        timer.join()


HAMMER = """
import faulthandler, os, random, signal, threading, time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pipeline.stops import StoppedError, stoppable

draw, stopped = random.Random(0), 0

def end(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)

for _ in range(100):
    faulthandler.dump_traceback_later(20, exit=True)
    gate = threading.Event()
    killer = threading.Thread(target=end, args=(draw.random() * 0.004,))
    try:
        with stoppable():
            killer.start()
            with ThreadPoolExecutor(8) as pool:
                try:
                    futures = {pool.submit(gate.wait) for _ in range(8)}
                    wait(futures, return_when=FIRST_COMPLETED)
                finally:
                    gate.set()
    except StoppedError:
        stopped += 1
    killer.join()
print(stopped)
"""


def test_a_pool_of_threads_survives_a_stop_at_any_moment() -> None:
    done = subprocess.run([sys.executable, "-c", HAMMER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100\n", "")
