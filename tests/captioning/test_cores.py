"""Actors on cores of their own: no two share one, and a dead one's cores are free again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from captioning import cores

HOLD = """
import sys
from captioning.cores import keep_to_own
print(*keep_to_own(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def hold(count: int) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that keeps to so many cores, and which."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(count)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    return process, [int(core) for core in process.stdout.readline().split()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity of processes here")
def test_no_two_share_a_core_and_a_dead_one_gives_its_back() -> None:
    available = os.sched_getaffinity(0)
    found = [hold(1) for _ in range(len(available))]
    try:
        assert sorted(core for _, own in found for core in own) == sorted(available)
        for process, own in found:
            threads = os.listdir(f"/proc/{process.pid}/task")
            assert {frozenset(os.sched_getaffinity(int(thread))) for thread in threads} == {frozenset(own)}
        late, none = hold(1)
        late.kill()
        assert none == [], "all are taken, so it keeps to none"
        found[0][0].kill()
        found[0][0].wait()
        again = hold(1)
        found.append(again)
        assert again[1] == found[0][1]
    finally:
        for process, _ in found:
            process.kill()
            process.wait()


def test_more_than_there_are_is_none_and_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    assert cores.keep_to_own(len(before) + 1) == ()
    assert os.sched_getaffinity(0) == before
    process, own = hold(1)
    process.kill()
    process.wait()
    assert len(own) == 1
