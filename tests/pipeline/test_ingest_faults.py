"""Killing ingest at any moment, and images that end the process that decodes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commits import CommitLog
from pipeline.ingest.inspect import Inspector, Picture, Reference, inspect_reference
from pipeline.storage import Location
from tests.pipeline.images import config, ingest, picture, put, rows

RUN = """
import sys, time
from tests.pipeline.images import config, ingest
from pipeline import commits
from pipeline.storage import Location

stop_at, root = sys.argv[1], sys.argv[2]
write = Location.write
def slow(self, data):
    name = self.uri.removeprefix(root)
    if name.endswith(stop_at) or (stop_at.endswith("/") and stop_at in name):
        print("at", name, flush=True)
        time.sleep(600)
    write(self, data)
Location.write = slow
if __name__ == "__main__":
    ingest(root + "/ws", config({"kind": "folder", "path": root + "/in"}, shard_images=4))
"""


@pytest.mark.parametrize(
    ("moment", "committed"),
    [
        ("/shards/000001.tar", 1),  # before its tar
        ("/_commits/images/000001.parquet.json", 1),  # tar there, no record
        ("/images/000001.parquet", 1),  # record there, part not published
        ("/manifests/", 3),  # all parts there, no manifest
    ],
)
def test_killed_and_run_again_gives_the_same_parts(tmp_path: Path, moment: str, committed: int) -> None:
    for seed in range(10):
        put(tmp_path / "in" / f"{seed}.jpg", picture(seed) if seed != 5 else b"broken")
    section = config({"kind": "folder", "path": str(tmp_path / "in")}, shard_images=4)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, moment, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert moment in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = next((tmp_path / "ws" / "ingest").iterdir())
    assert len(CommitLog(Location.of(store)).parts()) == committed
    again = ingest(tmp_path / "ws", section)
    undisturbed = ingest(tmp_path / "other", section)
    assert again.digest == undisturbed.digest
    assert rows(again) == rows(undisturbed)


def test_killed_between_the_longer_tar_and_its_rows_leaves_all_offsets_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        put(tmp_path / "in" / f"{seed}.jpg", picture(seed) if seed != 1 else b"broken")
    section = config({"kind": "folder", "path": str(tmp_path / "in")})
    before = ingest(tmp_path / "ws", section)
    put(tmp_path / "in" / "1.jpg", picture(1))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CommitLog, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path / "ws", section)
    tar = Path(before.store) / "shards" / "000000.tar"
    for row in rows(before):
        if row["status"] == "ok":
            data = tar.read_bytes()[row["offset"] : row["offset"] + row["size"]]
            assert data == (tmp_path / "in" / row["source"]).read_bytes()
    assert [row["status"] for row in rows(ingest(tmp_path / "ws", section))] == ["ok", "ok", "ok"]


def fatal(reference: Reference) -> Picture:
    """Like a fault in a decoder: the process is gone."""
    if reference.uri.endswith("poison.jpg"):
        os._exit(9)
    return inspect_reference(reference)


def test_an_image_that_ends_its_process_becomes_an_error_row(tmp_path: Path) -> None:
    names = [f"{seed:03d}.jpg" for seed in range(140)]
    for seed, name in enumerate(names):
        put(tmp_path / name, picture(seed))
    put(tmp_path / "poison.jpg", picture(999))
    names.insert(70, "poison.jpg")
    references = [Reference(str(tmp_path / name)) for name in names]
    with Inspector(2, fatal) as inspector:
        found = list(inspector(references))
        again = list(inspector(references[:3]))
    assert [picture.error is None for picture in found] == [name != "poison.jpg" for name in names]
    assert "ended the process" in str(found[70].error)
    assert [p.image_id for p in found[:3]] == [p.image_id for p in again]


def test_progress_is_shown_while_working(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "in" / "a.jpg", picture(0))
    ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "in")}))
    assert "ingest 1/1 images (100 %)" in capsys.readouterr().err
