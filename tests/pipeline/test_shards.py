"""Reading images by offset, from threads, forks and other file systems, and writing tars that never move them."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.ingest.shards import Entry, pack
from pipeline.shards import MAX_OPEN_FILES, ShardReader
from pipeline.storage import Location

ENTRIES = st.lists(
    st.tuples(st.binary(max_size=1200), st.sampled_from(["JPEG", "PNG"]), st.none() | st.text(max_size=700)),
    max_size=6,
)


def entries_of(drawn: list[tuple[bytes, str, str | None]]) -> list[Entry]:
    return [Entry(f"{n:03d}", kind, data, text) for n, (data, kind, text) in enumerate(drawn)]


@settings(max_examples=60, deadline=None)
@given(ENTRIES, st.integers(0, 6))
def test_offsets_are_true_and_stay_true_when_more_is_added(
    drawn: list[tuple[bytes, str, str | None]], some: int
) -> None:
    entries = entries_of(drawn)
    tar, offsets = pack(entries)
    assert {e.key: tar[offsets[e.key] : offsets[e.key] + len(e.data)] for e in entries} == {
        e.key: e.data for e in entries
    }
    fewer, before = pack(entries[:some])
    assert before.items() <= offsets.items()
    end = max((before[e.key] + len(e.data) for e in entries[:some]), default=0)
    assert tar[:end] == fewer[:end]
    assert pack(entries)[0] == tar
    with tarfile.open(fileobj=io.BytesIO(tar)) as file:
        members = {member.name: file.extractfile(member).read() for member in file}
    expected = {f"{e.key}.{'jpg' if e.format == 'JPEG' else 'png'}": e.data for e in entries}
    expected |= {f"{e.key}.txt": e.alt_text.encode() for e in entries if e.alt_text is not None}
    assert members == expected


def test_reads_from_local_and_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"0123456789")
    remote = Location.of(f"memory://{tmp_path.name}/1.tar")
    remote.write(b"abcdefghij")
    reader = ShardReader({"0": str(tmp_path / "0.tar"), "1": remote.uri})
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        assert one.read("0", 2, 3) == b"234"
        assert one.read("1", 7, 3) == b"hij"
    reader.close()
    assert reader.read("0", 0, 1) == b"0"


def test_what_is_wrong_with_a_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"0123456789")
    reader = ShardReader(
        {"0": str(tmp_path / "0.tar"), "gone": str(tmp_path / "gone.tar"), "m": "memory://none/m.tar"}
    )
    with pytest.raises(StoreError, match=r"shard '0' at .*0.tar ends before byte 12; it was cut or replaced"):
        reader.read("0", 8, 4)
    for name in ("gone", "m"):
        with pytest.raises(
            StoreError,
            match=rf"shard '{name}' is not at .* any more; put it back, or make it again: holism ingest CONFIG",
        ):
            reader.read(name, 0, 1)
    with pytest.raises(StoreError, match=r"shard 'other' is not in the manifest \(it has 3 shards\)"):
        reader.read("other", 0, 1)


def shards(path: Path, count: int) -> dict[str, str]:
    for number in range(count):
        (path / f"{number}.tar").write_bytes(f"{number:04d}".encode() * 50)
    return {str(number): str(path / f"{number}.tar") for number in range(count)}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_more_files_are_open_than_allowed_and_all_are_closed(tmp_path: Path) -> None:
    before = open_files()
    reader = ShardReader(shards(tmp_path, MAX_OPEN_FILES + 20))
    for _ in range(2):
        for name in reader.shards:
            assert reader.read(name, 4, 4) == f"{int(name):04d}".encode()
    assert open_files() - before == MAX_OPEN_FILES
    reader.close()
    assert open_files() == before
    reader.read("0", 0, 1)
    del reader
    assert open_files() == before


def test_threads_never_read_each_others_files(tmp_path: Path) -> None:
    interval, before = sys.getswitchinterval(), open_files()
    sys.setswitchinterval(1e-6)  # makes races likely: a reader with one table of files for all threads fails here
    reader = ShardReader(shards(tmp_path, MAX_OPEN_FILES * 2))
    wrong: list[str] = []

    def walk(step: int) -> None:
        for turn in range(3000):
            name = str(turn * step % len(reader.shards))
            if reader.read(name, 8, 4) != f"{int(name):04d}".encode():
                wrong.append(name)

    threads = [threading.Thread(target=walk, args=(step,)) for step in (1, 3, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert wrong == []
    assert open_files() == before  # a thread's files close with it


def test_a_fork_reads_on(tmp_path: Path) -> None:
    reader = ShardReader(shards(tmp_path, 3))
    assert reader.read("1", 0, 4) == b"0001"
    child = os.fork()
    if child == 0:
        os._exit(0 if reader.read("1", 4, 4) == b"0001" and reader.read("2", 0, 4) == b"0002" else 1)
    assert reader.read("1", 8, 4) == b"0001"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
