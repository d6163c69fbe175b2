"""The index holds what the bundles hold, is made once, and mends itself; its tokens are open_clip's."""

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.clip_tokens import clip_encoder
from pipeline.config import build
from pipeline.errors import StoreError
from pipeline.manifest import Manifest
from pipeline.storage import Location
from tests.training.conftest import captions_of, make_inputs
from training.bundles import Bundles, in_memory, read_bundles
from training.config import RunConfig
from training.index import piece as pieces
from training.index.piece import piece_of
from training.slots import Slot

Recipe = Callable[..., dict[str, Any]]
SLOTS = tuple(Slot(name=name, perspective=name) for name in ("alt_text", "detail", "style"))
ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "&<>;#amp ltgq'SſKİ\n\t\0\x0b’…é漢1½", max_size=30
)


def samples_of(bundles: Bundles) -> list[tuple[str, list[tuple[int, float, list[int]]]]]:
    """Of each sample its picture's id, and slot, weight and tokens of its captions."""
    found = []
    for number in range(len(bundles)):
        piece, row = bundles.sample(number)
        of_row = piece.captions(row)
        captions = [
            (int(piece.slot[c]), float(piece.weight[c]), piece.tokens(c).tolist())
            for c in range(of_row.start, of_row.stop)
        ]
        found.append((bundles.image_id(number), captions))
    return found


def rows_of(curate: Manifest) -> list[dict[str, Any]]:
    return [row for part in curate.parts for row in curate.read(part, schemas.BUNDLES).to_pylist()]


def of_rows(*tables: Sequence[dict[str, Any]]) -> Bundles:
    return in_memory([piece_of(schemas.table(schemas.BUNDLES, rows), SLOTS) for rows in tables])


def files_of(folder: Path) -> dict[str, int]:
    """When each was made; the time of an order is that of its last use."""
    return {
        path.name: 0 if path.name.startswith("order-") else path.stat().st_mtime_ns
        for path in folder.iterdir()
        if not path.name.startswith(".")
    }


def test_samples_are_those_of_the_bundles_in_the_order_of_their_ids(tmp_path: Path) -> None:
    curate = make_inputs(tmp_path, 20)["curate"]
    bundles = read_bundles(curate, SLOTS, Location.of(tmp_path / "index"))
    encode, names = clip_encoder(), [slot.name for slot in SLOTS]
    expected = [
        (row["image_id"], [(names.index(c["perspective"]), 1.0, encode(c["text"])) for c in row["captions"]])
        for row in sorted(rows_of(curate), key=lambda row: row["image_id"])
    ]
    assert samples_of(bundles) == expected == samples_of(read_bundles(curate, SLOTS))
    assert (bundles.dropped, bundles.captions) == (0, (20, 40, 13))
    places = {row["image_id"]: (row["shard"], row["key"], row["offset"], row["size"]) for row in rows_of(curate)}
    for number in range(20):
        piece, row = bundles.sample(number)
        found = piece.shard_names[piece.shard[row]], bundles.key(number), piece.offset[row], piece.size[row]
        assert found == places[bundles.image_id(number)]


def test_a_large_table_is_read_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(make_inputs(tmp_path, 20)["curate"])
    whole = of_rows(rows)
    monkeypatch.setattr(pieces, "ROWS_AT_ONCE", 3)
    assert samples_of(of_rows(rows)) == samples_of(whole)
    assert len(of_rows([])) == 0


def test_captions_of_more_than_two_gib_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of the table again and again: no more memory than one."""
    caption = {**captions_of(1)[0], "text": "word" * 2**18}
    row = {"shard": "s", "key": "k", "image_id": "i", "offset": 0, "size": 1, "captions": [caption]}
    table = pa.concat_tables([schemas.table(schemas.BUNDLES, [row])] * 2049)
    monkeypatch.setattr(pieces, "clip_encoder", lambda: lambda _: [7])
    assert len(piece_of(table, SLOTS)) == 2049


def test_the_order_follows_from_the_samples_and_not_from_where_they_lie(tmp_path: Path) -> None:
    """The same pictures and captions under other keys, in other shards and parts; two pictures are there twice."""
    rows = rows_of(make_inputs(tmp_path, 20)["curate"])
    rows += [{**rows[3], "captions": captions_of(7)}, {**rows[5], "key": "again"}]
    rng, found = np.random.default_rng(0), []
    for shards in (1, 3):
        shuffled = [rows[i] for i in rng.permutation(len(rows))]
        renamed = [{**row, "shard": f"s{i % shards}", "key": f"k{i}", "offset": i} for i, row in enumerate(shuffled)]
        found.append(of_rows(*(renamed[n::shards] for n in range(shards))))
    one, other = found
    assert samples_of(one) == samples_of(other)
    assert [image_id for image_id, _ in samples_of(one)] == sorted({row["image_id"] for row in rows})
    for number in range(len(other)):  # and each sample is still one picture's
        piece, row = other.sample(number)
        assert (piece.offset[row], piece.shard_names[piece.shard[row]]) == (
            key := int(other.key(number)[1:]),
            f"s{key % 3}",
        )


def test_a_picture_in_several_rows_is_one_sample_with_all_their_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list with a row for every caption: copies must not be each other's negatives."""
    rows = rows_of(make_inputs(tmp_path, 4)["curate"])
    plain = of_rows(rows)
    alt = captions_of(0)[0]
    further = [{**alt, "text": f"text {n}", "weight": 1.0 + n} for n in range(3)]
    copies = [{**rows[2], "key": f"c{n}", "captions": [one, *rows[2]["captions"]]} for n, one in enumerate(further)]
    for at_once in (1, 100):
        monkeypatch.setattr("training.index.order.JOINED_AT_ONCE", at_once)
        again = [{**rows[1], "key": "again"}]
        before, after = samples_of(plain), samples_of(of_rows([*rows, copies[0]], [*copies[1:], *again]))
        number = [image_id for image_id, _ in before].index(rows[2]["image_id"])
        more = [(0, 1.0 + n, clip_encoder()(f"text {n}")) for n in range(3)]
        assert sorted(after[number][1]) == sorted([*before[number][1], *more])
        assert after[:number] + after[number + 1 :] == before[:number] + before[number + 1 :]


def test_ids_that_begin_alike_are_sorted_to_their_ends(tmp_path: Path) -> None:
    rows = rows_of(make_inputs(tmp_path, 12)["curate"])
    ids = ["", "a", "b" * 7, "b" * 8, "b" * 8 + "a", "b" * 9, "b" * 30, "é" * 6, "é" * 5 + "a", "ü", "z\0", "z"]
    named = [{**row, "image_id": image_id} for row, image_id in zip(rows, ids, strict=True)]
    assert [image_id for image_id, _ in samples_of(of_rows(named[::2], named[1::2]))] == sorted(ids)


def test_pieces_are_used_again_and_damaged_ones_made_again(tmp_path: Path, recipe: Recipe) -> None:
    inputs, folder = make_inputs(tmp_path, 20), tmp_path / "index"
    expected = samples_of(read_bundles(inputs["curate"], SLOTS, Location.of(folder)))
    made = files_of(folder)
    assert len(made) == 4  # two pieces, their order, and the pictures that are there twice
    renamed = [Slot(name=f"{slot.name}-x", perspective=slot.perspective) for slot in SLOTS]
    assert samples_of(read_bundles(inputs["curate"], renamed, Location.of(folder))) == expected
    assert files_of(folder) == made
    one_shard = replace(inputs["curate"], parts=inputs["curate"].parts[:1], digest="")
    assert len(read_bundles(one_shard, SLOTS, Location.of(folder))) == 10
    assert {name for name in files_of(folder) if name.startswith("piece-")} <= made.keys()
    other_slots = read_bundles(inputs["curate"], build(RunConfig, recipe(slots=["style"])).slots, Location.of(folder))
    assert (len(other_slots), other_slots.dropped) == (13, 7)
    for name in made:
        damaged = folder / name
        for content in (b"", damaged.read_bytes()[:-100], bytes(damaged.stat().st_size)):
            damaged.write_bytes(content)
            assert samples_of(read_bundles(inputs["curate"], SLOTS, Location.of(folder))) == expected
        damaged.unlink()
        assert samples_of(read_bundles(inputs["curate"], SLOTS, Location.of(folder))) == expected


def test_several_processes_make_the_same_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curate = make_inputs(tmp_path, 20)["curate"]
    expected = samples_of(read_bundles(curate, SLOTS, Location.of(tmp_path / "one")))
    monkeypatch.setattr("training.index.build.MANY", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))
    monkeypatch.setattr("training.index.build._make", _made_elsewhere)
    assert samples_of(read_bundles(curate, SLOTS, Location.of(tmp_path / "two"))) == expected
    assert files_of(tmp_path / "one").keys() == files_of(tmp_path / "two").keys() - {"processes"}
    assert str(os.getpid()) not in (tmp_path / "two" / "processes").read_text().split()
    part = Path(curate.location(curate.parts[1]).uri)
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(StoreError, match="is damaged"):
        read_bundles(curate, SLOTS, Location.of(tmp_path / "three"))


def _made_elsewhere(curate: Manifest, part: Any, slots: Any, folder: Location) -> None:
    from training.index.build import _make

    (folder / "processes").append(f"{os.getpid()} ")
    _make(curate, part, slots, folder)


def test_what_no_index_needs_any_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that is open stays, of the others the last few; nobody else's file is touched."""
    monkeypatch.setattr("training.index.old.KEPT", 1)
    curate, folder = make_inputs(tmp_path, 20)["curate"], tmp_path / "index"
    (folder / "mine").mkdir(parents=True)
    (folder / ".part-piece-x-1").write_bytes(b"half")
    opened = read_bundles(curate, SLOTS[:1], Location.of(folder))
    first = files_of(folder).keys()
    assert not list(folder.glob(".part-*"))
    for slots in (SLOTS[1:2], SLOTS[:2], SLOTS[1:], SLOTS):
        read_bundles(curate, slots, Location.of(folder))
    found = files_of(folder).keys()
    assert first <= found
    assert len([name for name in found if name.startswith("order-")]) == 3  # open, newest, and one that is not
    assert len(found - {"mine"}) == 3 * 4
    assert len(pickle.loads(pickle.dumps(opened))) == 20  # a worker that starts now
    made = files_of(folder)
    assert len(read_bundles(curate, SLOTS[1:], Location.of(folder))) == 20
    assert files_of(folder).keys() == made.keys()


def test_a_reader_keeps_no_pages_of_the_index(tmp_path: Path) -> None:
    bundles = read_bundles(make_inputs(tmp_path, 20)["curate"], SLOTS, Location.of(tmp_path / "index"))

    def resident() -> int:
        maps = Path("/proc/self/smaps").read_text().split("/index/piece-")[1:]
        return sum(int(text.split("Rss:")[1].split()[0]) for text in maps)

    before = samples_of(bundles)
    assert resident() > 0
    bundles.release()
    assert resident() == 0
    assert samples_of(bundles) == before


def test_those_that_start_together_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curate, built = make_inputs(tmp_path, 20)["curate"], []
    original = Manifest.batches

    def slow(self: Manifest, *arguments: Any, **options: Any) -> Any:
        built.append(threading.get_ident())
        time.sleep(0.1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Manifest, "batches", slow)
    threads = [
        threading.Thread(target=read_bundles, args=(curate, SLOTS, Location.of(tmp_path / "index"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2  # a table for each of two parts


def test_no_room_for_the_index_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curate = make_inputs(tmp_path, 20)["curate"]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.storage._write_local", full)
    with pytest.raises(StoreError, match=r"no space is left for .*piece-.*; make room there"):
        read_bundles(curate, SLOTS, Location.of(tmp_path / "index"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    curate = make_inputs(tmp_path, 20)["curate"]
    (tmp_path / "index").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="permission denied"):
        read_bundles(curate, SLOTS, Location.of(tmp_path / "index"))


def test_damaged_bundles_are_named_when_the_index_is_made(tmp_path: Path) -> None:
    curate = make_inputs(tmp_path, 20)["curate"]
    part = Path(curate.location(curate.parts[0]).uri)
    part.write_bytes(bytes(len(part.read_bytes())))
    with pytest.raises(StoreError, match="is damaged"):
        read_bundles(curate, SLOTS, Location.of(tmp_path / "index"))


@pytest.fixture(scope="module")
def reference() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


@pytest.mark.parametrize(
    "text",
    [
        "A red circle, isn't it? It'S 3,500.25!",
        "fish &amp;amp; chips &lt;b&gt; <|startoftext|> <Start_of_Text>x<end_of_text>",
        "👩‍👩‍👧 family 🇩🇪 🏳️‍🌈 ½ ³ ⅷ ß İstanbul ﬁne ǅ",
        "“quotes” — naïve café CafeÌ\u0081 schÃ¶n\x1b[0m \x00\x0b",
        "नमस्ते दुनिया สวัสดี 漢字かな交じり文 \u200bzero\u00a0width\u2028line",
        "",
        " \n\t ",
        "\U0001f6dd \U0001fae8 \U00011f02 \U000323b0",
    ],
)
def test_tokens_are_open_clips(reference: open_clip.SimpleTokenizer, text: str) -> None:
    assert clip_encoder()(text) == reference.encode(text)


@settings(max_examples=300, deadline=None)
@given(ODD)
def test_tokens_of_any_text_are_open_clips(reference: open_clip.SimpleTokenizer, text: str) -> None:
    assert clip_encoder()(text) == reference.encode(text)


@pytest.mark.parametrize("letters", ["a", "qxzj", "漢字", "!"])
def test_a_long_word_takes_linear_time(reference: open_clip.SimpleTokenizer, letters: str) -> None:
    encode = clip_encoder()
    assert encode(letters * 20) == reference.encode(letters * 20)
    seconds = []
    for length in (20_000, 80_000):
        began = time.process_time()
        encode(letters * (length // len(letters)))
        seconds.append(time.process_time() - began)
    assert seconds[0] < 0.5
    assert seconds[1] < 12 * max(seconds[0], 0.005)  # square time: 16
