"""One picture in many rows: fetched once, stored once, and every row keeps its own alt text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import schemas
from pipeline.commits import CommitLog
from pipeline.identity import image_id
from pipeline.ingest.inspect import Reference
from pipeline.ingest.packing import pack_source
from pipeline.ingest.source import Described, Identity, Item
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from tests.pipeline.images import picture, put

Rows = list[tuple[str, str]]  # name of a page, alt text


class Pages:
    """A source like a URL list: rows of names and texts, and pages that are fetched; it counts how often."""

    lasting = True
    warnings: list[str] = []  # noqa: RUF012

    def __init__(self, folder: Path, given: Rows) -> None:
        self.left_out, self.mended = Tally(), Tally()
        self.folder, self.given, self.fetched = folder, given, Counter[str]()

    def items(self) -> list[Item]:
        return [Item(name, "", (name, text), text) for name, text in self.given]

    def identity(self, row: Mapping[str, Any]) -> Identity:
        return (row["source"], row["alt_text"])

    def picture(self, name: str) -> str | None:
        return name.rstrip("/") or None

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:
        return True

    def describe(self, item: Item) -> Described:
        return Described(item.alt_text, item.name)

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        for batch in batches:
            self.fetched.update(item.name for item in batch)
            files = [self.folder / item.name.rstrip("/") for item in batch]
            yield [Reference(str(file)) if file.is_file() else "gone" for file in files]


def pages(folder: Path, count: int) -> Path:
    for seed in range(count):
        put(folder / f"p{seed}", picture(seed))
    return folder


def packed(store: Path, source: Pages, *, shard_images: int = 2, retry_failed: bool = False) -> list[dict[str, Any]]:
    location = Location.of(str(store))
    parts = pack_source(
        source,
        location,
        shard_images=shard_images,
        shard_bytes=1 << 30,
        resize=None,
        workers=1,
        retry_failed=retry_failed,
    )
    packed_rows = [row for part in parts for row in schemas.read(location / part.name, schemas.IMAGES).to_pylist()]
    for row in packed_rows:
        if row["status"] == "ok":
            data = (location / f"shards/{row['shard']}.tar").read_range(row["offset"], row["size"])
            assert (
                image_id(data) == row["image_id"] == image_id((source.folder / row["source"].rstrip("/")).read_bytes())
            )
    assert sorted((row["source"], row["alt_text"]) for row in packed_rows) == sorted(source.given)
    return packed_rows


def places(packed_rows: Sequence[Mapping[str, Any]]) -> dict[str, set[tuple[str, int]]]:
    """Where the picture of each name lies."""
    result: dict[str, set[tuple[str, int]]] = {}
    for row in packed_rows:
        result.setdefault(row["source"].rstrip("/"), set()).add((row["shard"], row["offset"]))
    return result


def test_a_row_for_every_caption(tmp_path: Path) -> None:
    """COCO's list: the rows of a picture are far apart, and each has a text of its own."""
    given = [(f"p{seed}" + "/" * (turn % 2), f"text {turn} of {seed}") for turn in range(5) for seed in range(5)]
    source = Pages(pages(tmp_path / "in", 5), [*given, ("p9", "one"), ("p9", "two")])
    packed_rows = packed(tmp_path / "ws", source)
    assert source.fetched == dict.fromkeys([f"p{seed}" for seed in range(5)] + ["p9"], 1)
    assert [len(where) for where in places(packed_rows[:25]).values()] == [1] * 5
    assert {row["shard"] for row in packed_rows} == {"000000", "000001", "000002"}
    assert [row["error"] for row in packed_rows[-2:]] == ["gone", "gone"]
    again = Pages(source.folder, source.given)
    assert packed(tmp_path / "ws", again) == packed_rows
    assert not again.fetched
    put(tmp_path / "in" / "p9", picture(9))
    assert [row["status"] for row in packed(tmp_path / "ws", again, retry_failed=True)] == ["ok"] * 27
    assert again.fetched == {"p9": 1}


def test_further_captions_join_the_picture_that_is_there(tmp_path: Path) -> None:
    source = Pages(pages(tmp_path / "in", 4), [(f"p{seed}", "first") for seed in range(4)])
    before = packed(tmp_path / "ws", source)
    tars = {file.name: file.read_bytes() for file in (tmp_path / "ws" / "shards").iterdir()}
    more = Pages(source.folder, [*source.given, ("p1", "second"), ("p3/", "third"), ("p1", "fourth")])
    packed_rows = packed(tmp_path / "ws", more)
    assert not more.fetched
    assert {file.name: file.read_bytes() for file in (tmp_path / "ws" / "shards").iterdir()} == tars
    assert [row for row in packed_rows if row["key"] in {row["key"] for row in before}] == before
    assert [row["key"] for row in packed_rows if row not in before] == [
        "000000_000002",
        "000000_000003",
        "000001_000002",
    ]


def test_a_caption_that_goes_leaves_the_tar_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [("p0", "a"), ("p1", "b"), ("p1", "c"), ("p1", "d")]
    source = Pages(pages(tmp_path / "in", 2), given)
    before = packed(tmp_path / "ws", source)
    monkeypatch.setattr("pipeline.ingest.packing.pack", lambda _: pytest.fail("packed again"))
    fewer = Pages(source.folder, [*given[:2], given[3]])
    packed_rows = packed(tmp_path / "ws", fewer)
    assert packed_rows == [row for row in before if row["alt_text"] != "c"]
    other = Pages(source.folder, [*given[:2], ("p1", "another")])  # one goes and one joins
    assert [row["shard"] for row in packed(tmp_path / "ws", other)] == ["000000"] * 3
    assert not source.fetched.keys() & (fewer.fetched.keys() | other.fetched.keys())
    monkeypatch.undo()
    first = Pages(source.folder, [given[0], ("p1", "another")])  # the tar has the text of the row that goes
    assert {row["shard"] for row in packed(tmp_path / "ws", first)} == {"000001"}


def test_a_text_that_changes_fetches_nothing_again(tmp_path: Path) -> None:
    """The shard is left alone, since earlier manifests may name it; what it holds is what the link gave once."""
    source = Pages(pages(tmp_path / "in", 2), [("p0", "a"), ("p1", "b"), ("p1", "c")])
    packed(tmp_path / "ws", source)
    changed = Pages(source.folder, [("p0", "a"), ("p1", "another"), ("p1", "c")])
    packed_rows = packed(tmp_path / "ws", changed)
    assert not changed.fetched
    assert {row["shard"] for row in packed_rows} == {"000001"}


def test_copies_under_other_names_share_their_place_in_a_shard(tmp_path: Path) -> None:
    folder = pages(tmp_path / "in", 2)
    for name in ("q0", "q1"):
        put(folder / name, picture(0))
    source = Pages(folder, [(name, name) for name in ("p0", "p1", "q0", "q1")])
    packed_rows = packed(tmp_path / "ws", source, shard_images=4)
    assert len({row["offset"] for row in packed_rows}) == 2
    tar = tmp_path / "ws" / "shards" / "000000.tar"
    kept = tar.read_bytes()
    tar.unlink()
    assert packed(tmp_path / "ws", source, shard_images=4) == packed_rows
    assert tar.read_bytes() == kept


def test_a_row_that_succeeds_late_changes_no_name_in_the_tar(tmp_path: Path) -> None:
    """Its picture lies in the tar already under a later key: packed again, the tar must have the same bytes."""
    folder = pages(tmp_path / "in", 2)
    source = Pages(folder, [("late", "l"), ("p0", "a"), ("p1", "b")])
    packed(tmp_path / "ws", source, shard_images=4)
    put(folder / "late", picture(1))
    packed_rows = packed(tmp_path / "ws", source, shard_images=4, retry_failed=True)
    tar = tmp_path / "ws" / "shards" / "000000.tar"
    kept = tar.read_bytes()
    tar.unlink()
    assert packed(tmp_path / "ws", source, shard_images=4) == packed_rows
    assert tar.read_bytes() == kept
    assert len(CommitLog(Location.of(str(tmp_path / "ws"))).parts()) == 1
