"""Spans of remote shards on disk: asked for once by all processes, within a limit, and never half there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.identity import image_id
from pipeline.shard_cache import ShardCache
from pipeline.shards import ShardReader
from pipeline.storage import TEMPORARY, Location

DATA = bytes(range(256)) * 40


@dataclass(frozen=True, order=True)
class Slow(Location):
    """Takes its time, and notes each request in a file."""

    log: str = ""

    def read_range(self, offset: int, size: int) -> bytes:
        with open(self.log, "a", encoding="utf8") as handle:
            handle.write(f"{offset}\n")
        time.sleep(0.05)
        return DATA[offset : offset + size]


@pytest.fixture
def shard(tmp_path: Path) -> Slow:
    return Slow(str(tmp_path / "x.tar"), str(tmp_path / "log"))


def requests(shard: Slow) -> list[int]:
    return [int(line) for line in Path(shard.log).read_text().splitlines()]


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _read_all(cache: ShardCache, shard: Slow, results: Any) -> None:
    spans = [(start, start + 1024) for start in range(0, 8192, 1024)]
    for span in spans[os.getpid() % 8 :] + spans[: os.getpid() % 8]:
        if cache.read(shard, span, span[0] + 10, 100) != DATA[span[0] + 10 : span[0] + 110]:
            results.put("wrong bytes")
    results.put("done")


def test_processes_and_threads_ask_for_a_span_once_together(tmp_path: Path, shard: Slow) -> None:
    cache, context = ShardCache(tmp_path / "cache", 10**6), multiprocessing.get_context("fork")
    results = context.Queue()
    started: list[Any] = [context.Process(target=_read_all, args=(cache, shard, results)) for _ in range(3)]
    started += [threading.Thread(target=_read_all, args=(cache, shard, results)) for _ in range(2)]
    for one in started:
        one.start()
    assert [results.get(timeout=60) for _ in started] == ["done"] * 5
    for one in started:
        one.join()
    assert sorted(requests(shard)) == list(range(0, 8192, 1024))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 1000)), max_size=30))
def test_the_limit_holds_and_bytes_are_right(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    shard, cache = Location.of(f"memory://{folder.name}.tar"), ShardCache(folder / "c", 2500)
    shard.write(DATA)
    for start, size in drawn:
        assert cache.read(shard, (start, start + size), start, size) == DATA[start : start + size]
        assert cache.read(shard, (start, start + size), start + size // 2, 1) == DATA[start + size // 2 :][:1]
        assert sum(path.stat().st_size for path in (folder / "c").iterdir()) <= 2500


def test_what_was_read_the_longest_ago_makes_room(tmp_path: Path, shard: Slow) -> None:
    cache = ShardCache(tmp_path / "cache", 3000)
    spans = [(start, start + 1000) for start in (0, 1000, 2000, 3000)]
    for span in (*spans[:3], spans[0], spans[3], spans[0]):
        cache.read(shard, span, span[0], 10)
    assert requests(shard) == [0, 1000, 2000, 3000]
    cache.read(shard, spans[1], 1000, 10)
    assert requests(shard)[-1] == 1000


def test_a_span_larger_than_the_limit_is_read_and_not_kept(tmp_path: Path, shard: Slow) -> None:
    cache = ShardCache(tmp_path / "cache", 500)
    assert cache.read(shard, (0, 1000), 900, 50) == DATA[900:950]
    assert kept(tmp_path / "cache") == []


def test_what_is_being_read_may_go(tmp_path: Path, shard: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, pread = ShardCache(tmp_path / "cache", 1000), os.pread
    cache.fetch(shard, (0, 1000))

    def after_all_is_gone(*where: int) -> bytes:
        monkeypatch.setattr(os, "pread", pread)
        cache.fetch(shard, (1000, 2000))
        return pread(*where)

    monkeypatch.setattr(os, "pread", after_all_is_gone)
    assert cache.read(shard, (0, 1000), 400, 20) == DATA[400:420]
    assert len(kept(tmp_path / "cache")) == 1
    assert requests(shard) == [0, 1000]


def _killed_while_writing(cache: ShardCache, shard: Slow) -> None:
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
    cache.fetch(shard, (0, 1000))


def test_a_killed_process_leaves_nothing_half(tmp_path: Path, shard: Slow) -> None:
    cache = ShardCache(tmp_path / "cache", 5000)
    child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(cache, shard))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert kept(tmp_path / "cache") == []
    assert list((tmp_path / "cache").glob(f"{TEMPORARY}*"))
    assert cache.read(shard, (0, 1000), 5, 5) == DATA[5:10]  # its locks went with it
    assert not list((tmp_path / "cache").glob(f"{TEMPORARY}*"))


def test_a_full_disk_is_named(tmp_path: Path, shard: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match=r"no space is left for .*cache"):
        ShardCache(tmp_path / "cache", 5000).fetch(shard, (0, 1000))


def test_a_damaged_part_is_read_again_and_a_damaged_shard_is_named(tmp_path: Path) -> None:
    shard, folder = Location.of(f"memory://{tmp_path.name}/s.tar"), tmp_path / "cache"
    shard.write(DATA)
    reader = ShardReader({"s": shard.uri}, ShardCache(folder, 10**6))
    picture, span = DATA[100:400], (0, 1000)
    assert reader.read("s", 100, 300, image_id(picture), span) == picture
    (part,) = kept(folder)
    for damage in (bytes(1000), b""):
        part.write_bytes(damage)
        assert reader.read("s", 100, 300, image_id(picture), span) == picture
        assert kept(folder) == []
        reader.fetch("s", span)
    shard.write(bytes(1000))
    part.unlink()
    with pytest.raises(StoreError, match=r"shard 's' at .* is damaged"):
        reader.read("s", 100, 300, image_id(picture), span)
    shard.remove()
    with pytest.raises(StoreError, match=r"shard 's' is not at .* any more"):
        reader.read("s", 100, 300, image_id(picture), span)
