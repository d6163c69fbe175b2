"""The commit log: killed at any moment, what is listed is complete and what is not is work to do."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commits import COMMITS, CommitLog, Part
from pipeline.identity import digest
from pipeline.storage import Location


@pytest.fixture(params=["local", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> CommitLog:
    return CommitLog(Location.of(tmp_path if request.param == "local" else f"memory://{tmp_path.name}"))


def test_a_committed_part_is_listed_with_all_it_says(log: CommitLog) -> None:
    part = log.commit(
        "a/b.parquet", b"data", rows=3, errors=1, cells=("x", "y"), seconds=1.23456, detail={"shard": "0"}
    )
    assert part == Part("a/b.parquet", 3, 1, 4, digest(b"data"), ("x", "y"), 1.235, {"shard": "0"})
    assert log.parts() == {"a/b.parquet": part}
    assert log.get("a/b.parquet") == part
    assert log.get("a/c.parquet") is None
    assert (log.folder / "a/b.parquet").read() == b"data"


def test_committing_again_replaces(log: CommitLog) -> None:
    log.commit("a", b"one", rows=1, errors=1)
    second = log.commit("a", b"two!", rows=1)
    assert log.parts() == {"a": second}
    third = log.commit("a", b"!owt", rows=1)  # the same size: content tells them apart
    assert log.get("a") == third
    assert log.parts() == {"a": third}


def test_a_part_cut_short_or_deleted_is_work_to_do(log: CommitLog) -> None:
    part = log.commit("a", b"0123456789", rows=1)
    other = log.commit("b", b"x", rows=1)
    (log.folder / "a").write(b"01234")
    assert log.get("a") is None
    assert log.parts() == {"b": other}
    (log.folder / "a").remove()
    assert log.get("a") is None
    assert log.commit("a", b"0123456789", rows=1) == part
    assert set(log.parts()) == {"a", "b"}


def test_a_file_without_a_record_is_not_listed(log: CommitLog) -> None:
    (log.folder / "stray.parquet").write(b"x")
    assert log.parts() == {}
    assert log.get("stray.parquet") is None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'"text"', b"null", b'{"name": "a"}', b"\xff\xfe", b'{"cells": 3}']
)
def test_a_damaged_record_counts_as_none(log: CommitLog, damage: bytes) -> None:
    log.commit("a", b"data", rows=1)
    (log.folder / COMMITS / "a.json").write(damage)
    assert log.parts() == {}
    assert log.get("a") is None
    again = log.commit("a", b"data", rows=1)
    assert log.get("a") == again


KILLED = """
import sys
from pipeline.commits import CommitLog
from pipeline.storage import Location
write = Location.write
def hang(self, data):
    if self.uri.endswith(sys.argv[2]):
        print("now", flush=True)
        sys.stdin.read()
    write(self, data)
log = CommitLog(Location.of(sys.argv[1]))
Location.write = hang
log.commit("part", sys.argv[3].encode(), rows=1)
"""


def killed_at(folder: Path, name: str, data: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), name, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("moment", ["part.json", "part"])
def test_killed_before_record_or_part_is_as_if_never_begun(tmp_path: Path, moment: str) -> None:
    killed_at(tmp_path, moment, "data")
    log = CommitLog(Location.of(tmp_path))
    assert log.parts() == {}
    assert log.get("part") is None
    assert (tmp_path / COMMITS / "part.json").exists() == (moment == "part")
    part = log.commit("part", b"data", rows=1)
    assert log.parts() == {"part": part}


@pytest.mark.parametrize("moment", ["part.json", "part"])
@pytest.mark.parametrize("data", ["longer than before", "eno"])
def test_killed_while_replacing_leaves_the_old_part_in_force(tmp_path: Path, moment: str, data: str) -> None:
    log = CommitLog(Location.of(tmp_path))
    old = log.commit("part", b"one", rows=1)
    killed_at(tmp_path, moment, data)
    assert log.parts() == {"part": old}
    assert log.get("part") == old
    killed_at(tmp_path, moment, data)  # killed twice: the published part is still known
    assert log.get("part") == old
    new = log.commit("part", data.encode(), rows=1)
    assert log.parts() == {"part": new}


NAMES = st.sampled_from(["a", "b/c", "b/d"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["commit", "record only", "cut"]), NAMES, st.binary(max_size=3)), max_size=12
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_happens_the_log_lists_what_is_published(
    tmp_path_factory: Any, steps: list[tuple[str, str, bytes]]
) -> None:
    folder = Location.of(tmp_path_factory.mktemp("log"))
    log, expected = CommitLog(folder), dict[str, bytes]()
    for step, name, data in steps:
        if step == "commit":
            log.commit(name, data, rows=1)
            expected[name] = data
        elif step == "record only":
            _die_before_publishing(log, name, data)
            if not (folder / name).exists():
                expected.pop(name, None)
        elif name in expected:
            (folder / name).write(expected.pop(name) + b"longer")
    parts = log.parts()
    assert {name: (folder / name).read() for name in parts} == expected
    assert {name: part.digest for name, part in parts.items()} == {
        name: digest(data) for name, data in expected.items()
    }
    assert all(log.get(name) == part for name, part in parts.items())


def _die_before_publishing(log: CommitLog, name: str, data: bytes) -> None:
    """A commit whose second write, that of the part, never happens."""
    write = Location.write

    def first_only(self: Location, content: bytes) -> None:
        if self == log.folder / name:
            raise KeyboardInterrupt
        write(self, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "write", first_only)
        with pytest.raises(KeyboardInterrupt):
            log.commit(name, data, rows=1)
