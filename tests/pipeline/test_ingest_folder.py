"""Folders of images: what is found, what is packed, what keeps its place, and what users get wrong."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InputError, StoreError
from pipeline.identity import image_id
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.pipeline.images import by_source, config, ingest, picture, put, rows


def folder_of(path: Path, count: int, first: int = 0) -> dict[str, object]:
    for seed in range(first, first + count):
        put(path / f"{seed:03d}.jpg", picture(seed))
    return {"kind": "folder", "path": str(path)}


def test_every_row_leads_to_the_bytes_it_names(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 5)
    put(tmp_path / "in" / "deep" / "er" / "x.PNG", picture(9, (30, 20), "PNG"))
    manifest = ingest(tmp_path / "ws", config(source, shard_images=4))
    assert shard_names(manifest) == ["000000", "000001"]
    reader = ShardReader(shard_uris(manifest))
    by_name = by_source(manifest)
    assert sorted(by_name) == ["000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg", "deep/er/x.PNG"]
    for name, row in by_name.items():
        data = (tmp_path / "in" / name).read_bytes()
        assert reader.read(row["shard"], row["offset"], row["size"]) == data
        assert row["image_id"] == row["source_hash"] == image_id(data)
        assert row["status"] == "ok"
        assert row["error"] is None
    png = by_name["deep/er/x.PNG"]
    assert (png["width"], png["height"], png["format"]) == (30, 20, "PNG")
    assert manifest.counts["images"] == manifest.counts["distinct_images"] == 6


def test_shards_are_ordinary_webdataset_tars(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 2)
    put(tmp_path / "in" / "001.txt", "  a blue disc \n")
    manifest = ingest(tmp_path / "ws", config(source))
    with tarfile.open(shard_uris(manifest)["000000"]) as tar:
        assert tar.getnames() == ["000000_000000.jpg", "000000_000001.jpg", "000000_000001.txt"]
        assert tar.extractfile("000000_000001.txt").read() == b"a blue disc"
        assert {member.mtime for member in tar} == {0}


def test_alt_text_beside_the_image_or_in_a_table(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 3)
    put(tmp_path / "in" / "000.txt", "beside")
    put(tmp_path / "in" / "001.txt", "   ")
    beside = by_source(ingest(tmp_path / "ws", config(source)))
    assert [beside[f"00{n}.jpg"]["alt_text"] for n in range(3)] == ["beside", None, None]
    put(tmp_path / "in" / "captions.csv", 'image,text\n./000.jpg,"one, two"\n002.jpg,three\n002.jpg,again\n')
    table = {**source, "captions": "captions.csv", "file_column": "image", "caption_column": "text"}
    told = by_source(ingest(tmp_path / "ws", config(table)))
    assert [told[f"00{n}.jpg"]["alt_text"] for n in range(3)] == ["one, two", None, "again"]  # the last of its rows
    put(tmp_path / "c.jsonl", '{"file": "001.jpg", "caption": "json"}\n')
    told = by_source(ingest(tmp_path / "ws", config({**source, "captions": str(tmp_path / "c.jsonl")})))
    assert [told[f"00{n}.jpg"]["alt_text"] for n in range(3)] == [None, "json", None]


def test_what_a_table_of_captions_says_too_much_or_of_others_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "in [1]"
    source = folder_of(folder, 4)
    put(folder / "sub" / "cafe\u0301.jpg", picture(9))
    rows = [
        ("000.jpg", ["", None, "a boat", "one boat"]),
        ("001.jpg", ["a cat"]),
        ("001.jpg", ["a cat", "it sleeps"]),
        ("sub\\caf\u00e9.jpg", ["a café"]),
        ("gone.jpg", ["a dog"]),
        (None, ["a dog"]),
        ("002.jpg", None),
    ]
    files, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"file": files, "caption": pa.array(texts)}), folder / "c [all].parquet")
    manifest = ingest(tmp_path / "ws", config({**source, "captions": "c [all].parquet"}))
    by_name = {name: row["alt_text"] for name, row in by_source(manifest).items()}
    assert [by_name[f"00{n}.jpg"] for n in range(4)] == ["a boat", "a cat", None, None]
    assert by_name["sub/cafe\u0301.jpg"] == "a café"
    lost, nameless, more, _ = manifest.warnings
    assert nameless == "c [all].parquet: 1 caption names no file"
    assert lost == (
        "c [all].parquet: 1 caption is for no image of the folder (of 5), such as 'gone.jpg'; images without a "
        "caption: '002.jpg' and '003.jpg'"
    )
    assert more.startswith("c [all].parquet: 2 rows have more than one caption, and the first that is not")


def test_a_table_with_a_row_for_every_caption_keeps_them_all(tmp_path: Path) -> None:
    source = {**folder_of(tmp_path / "in", 3), "captions": "c.csv"}
    texts = [f"000.jpg,caption {n}\n" for n in range(5)] + ["001.jpg,a cat\n", "001.jpg,a cat\n"]

    def told(texts: list[str]) -> list[tuple[str, str | None, str]]:
        put(tmp_path / "in" / "c.csv", "file,caption\n" + "".join(texts))
        manifest = ingest(tmp_path / "ws", config(source))
        assert manifest.counts["distinct_images"] == 3
        with tarfile.open(shard_uris(manifest)["000000"]) as tar:
            assert sum(name.endswith(".jpg") for name in tar.getnames()) == 3
        return [(row["source"], row["alt_text"], row["key"]) for row in rows(manifest)]

    before = told(texts)
    assert [row[:2] for row in before] == [
        *(("000.jpg", f"caption {n}") for n in range(5)),
        ("001.jpg", "a cat"),
        ("002.jpg", None),
    ]
    assert told(["001.jpg,it sleeps\n", *texts]) == [*before, ("001.jpg", "it sleeps", "000000_000007")]


def test_a_table_of_captions_in_windows_1252(tmp_path: Path) -> None:
    source = {**folder_of(tmp_path / "in", 2), "captions": "c.csv"}
    put(tmp_path / "in" / "c.csv", "file,caption\n000.jpg,a café\n001.jpg,a cat\n".encode("cp1252"))
    manifest = ingest(tmp_path / "ws", config(source))
    assert [row["alt_text"] for row in rows(manifest)] == [None, "a cat"]
    assert (
        "1 time, first in c.csv line 2; if they are Windows-1252, set ingest.source.encoding" in manifest.warnings[0]
    )
    manifest = ingest(tmp_path / "ws", config({**source, "encoding": "windows-1252"}))
    assert [row["alt_text"] for row in rows(manifest)] == ["a café", "a cat"]


def test_the_same_picture_twice_is_two_rows_of_one_id(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 2)
    put(tmp_path / "in" / "again.jpg", picture(0))
    manifest = ingest(tmp_path / "ws", config(source))
    by_name = by_source(manifest)
    assert by_name["000.jpg"]["image_id"] == by_name["again.jpg"]["image_id"]
    assert len({row["key"] for row in by_name.values()}) == 3
    assert (manifest.counts["images"], manifest.counts["distinct_images"]) == (3, 2)


def test_damaged_images_are_counted_rows_with_a_reason(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 1)
    whole = picture(7, (200, 200))
    put(tmp_path / "in" / "cut.jpg", whole[: len(whole) // 2])
    put(tmp_path / "in" / "cut.png", picture(7, (200, 200), "PNG")[:-4000])
    put(tmp_path / "in" / "empty.jpg", b"")
    put(tmp_path / "in" / "text.jpg", "<html>not found</html>")
    bomb = io.BytesIO()
    Image.new("1", (9_500, 9_500)).save(bomb, "PNG")
    put(tmp_path / "in" / "bomb.png", bomb.getvalue())
    manifest = ingest(tmp_path / "ws", config(source))
    errors = {name: row["error"] for name, row in by_source(manifest).items() if row["status"] == "error"}
    assert sorted(errors) == ["bomb.png", "cut.jpg", "cut.png", "empty.jpg", "text.jpg"]
    assert "truncated" in errors["cut.jpg"]
    assert "truncated" in errors["cut.png"]
    assert "empty" in errors["empty.jpg"]
    assert "not an image" in errors["text.jpg"]
    assert "0x" not in errors["text.jpg"]  # no addresses of objects: reasons must be equal between runs
    assert "decompression bomb" in errors["bomb.png"]
    assert (manifest.counts["images"], manifest.counts["errors"]) == (1, 5)
    assert "5 of 6 images could not be used" in manifest.warnings[0]
    row = by_source(manifest)["cut.jpg"]
    assert row["image_id"] is None
    assert row["offset"] is None


def test_resize_shrinks_and_names_the_new_bytes(tmp_path: Path) -> None:
    put(tmp_path / "in" / "large.jpg", picture(1, (120, 60)))
    put(tmp_path / "in" / "small.png", picture(2, (40, 20), "PNG"))
    clear = io.BytesIO()
    Image.new("RGBA", (64, 128), (10, 20, 30, 0)).save(clear, "PNG")
    put(tmp_path / "in" / "clear.png", clear.getvalue())
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    Image.new("RGB", (120, 60)).save(turned, "JPEG", exif=exif)
    put(tmp_path / "in" / "turned.jpg", turned.getvalue())
    manifest = ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "in")}, resize=32))
    by_name = by_source(manifest)
    sizes = {name: (r["width"], r["height"], r["original_width"], r["original_height"]) for name, r in by_name.items()}
    assert sizes["large.jpg"] == (64, 32, 120, 60)
    assert sizes["small.png"] == (40, 20, 40, 20)
    assert sizes["clear.png"] == (32, 64, 64, 128)
    assert sizes["turned.jpg"] == (32, 64, 60, 120)
    assert by_name["large.jpg"]["image_id"] != by_name["large.jpg"]["source_hash"]
    assert by_name["small.png"]["image_id"] == by_name["small.png"]["source_hash"]
    reader = ShardReader(shard_uris(manifest))
    for name, row in by_name.items():
        with Image.open(io.BytesIO(reader.read(row["shard"], row["offset"], row["size"]))) as image:
            assert image.size == (row["width"], row["height"])
            assert image.format == row["format"]
            assert image.has_transparency_data == (name == "clear.png")


def test_new_files_go_into_new_shards_and_the_others_stay(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 5)
    section = config(source, shard_images=2)
    before = ingest(tmp_path / "ws", section)
    put(tmp_path / "in" / "000a.jpg", picture(50))  # sorts into the middle
    after = ingest(tmp_path / "ws", section)
    assert after.fingerprint != before.fingerprint
    assert shard_names(after) == [*shard_names(before), "000003"]
    assert [row["source"] for row in shard_images(after, "000003").to_pylist()] == ["000a.jpg"]
    assert {part.name: part.digest for part in before.parts}.items() <= {p.name: p.digest for p in after.parts}.items()
    (tmp_path / "in" / "000a.jpg").unlink()
    assert ingest(tmp_path / "ws", section).digest == before.digest


def test_touched_files_keep_their_place_and_changed_ones_do_not(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 4)
    put(tmp_path / "in" / "003.txt", "old")
    section = config(source, shard_images=2)
    before = ingest(tmp_path / "ws", section)
    for file in (tmp_path / "in").iterdir():
        os.utime(file, ns=(1, 1))
    touched = ingest(tmp_path / "ws", section)
    assert touched.fingerprint != before.fingerprint
    assert touched.digest == before.digest  # so nothing downstream runs again
    put(tmp_path / "in" / "001.jpg", picture(77))
    changed = ingest(tmp_path / "ws", section)
    assert shard_names(changed) == ["000001", "000002"]
    assert by_source(changed)["001.jpg"]["image_id"] == image_id(picture(77))
    assert by_source(changed)["000.jpg"]["image_id"] == image_id(picture(0))
    put(tmp_path / "in" / "003.txt", "new")
    assert by_source(ingest(tmp_path / "ws", section))["003.jpg"]["alt_text"] == "new"


def test_a_repaired_file_joins_its_shard_and_nothing_else_moves(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 3)
    put(tmp_path / "in" / "001.jpg", picture(1)[:300])
    section = config(source)
    before = by_source(ingest(tmp_path / "ws", section))
    put(tmp_path / "in" / "001.jpg", picture(1))
    manifest = ingest(tmp_path / "ws", section)
    after = by_source(manifest)
    assert [before[n]["status"] for n in sorted(before)] == ["ok", "error", "ok"]
    assert {row["status"] for row in after.values()} == {"ok"}
    assert after["001.jpg"]["key"] == before["001.jpg"]["key"]
    assert after["000.jpg"] == before["000.jpg"]
    assert after["002.jpg"] == before["002.jpg"]
    reader = ShardReader(shard_uris(manifest))
    for name, row in after.items():
        assert reader.read(row["shard"], row["offset"], row["size"]) == (tmp_path / "in" / name).read_bytes()


def test_a_lost_tar_is_made_again(tmp_path: Path) -> None:
    section = config(folder_of(tmp_path / "in", 4), shard_images=2)
    before = ingest(tmp_path / "ws", section)
    tar = Path(before.store) / "shards" / "000000.tar"
    kept = tar.read_bytes()
    tar.unlink()
    row = rows(before)[0]
    with pytest.raises(StoreError, match="ingest CONFIG --retry-failed"):
        ShardReader(shard_uris(before)).read(row["shard"], row["offset"], row["size"])
    after = ingest(tmp_path / "ws", section)  # that it is lost is seen without being told
    assert (shard_names(after), after.digest) == (["000000", "000001"], before.digest)
    assert tar.read_bytes() == kept
    reader = ShardReader(shard_uris(after))
    for name, row in by_source(after).items():
        assert reader.read(row["shard"], row["offset"], row["size"]) == (tmp_path / "in" / name).read_bytes()


def test_hidden_files_are_left_out_and_links_stay_inside(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 1)
    put(tmp_path / "in" / ".cache" / "x.jpg", picture(5))
    put(tmp_path / "in" / "._y.jpg", b"resource fork")
    put(tmp_path / "elsewhere" / "z.jpg", picture(6))
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in")
    put(tmp_path / "in" / "Thumbs.db", b"of an operating system")
    (tmp_path / "in" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in" / "outside.jpg").symlink_to(tmp_path / "elsewhere" / "z.jpg")
    (tmp_path / "in" / "inside.jpg").symlink_to(tmp_path / "in" / "000.jpg")
    manifest = ingest(tmp_path / "ws", config(source))
    assert sorted(by_source(manifest)) == ["000.jpg", "inside.jpg"]
    assert sorted(manifest.counts["left_out"].values()) == [3, 3]  # hidden; leading out (the dead one does too)
    assert "links that lead out of the folder (ingest.source.follow_links takes them): 3" in manifest.warnings[0]
    asked = config({**source, "follow_links": True})
    assert sorted(by_source(ingest(tmp_path / "ws", asked))) == [
        "000.jpg",
        "inside.jpg",
        "linked/z.jpg",
        "outside.jpg",
    ]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jpg").symlink_to(tmp_path / "in" / "000.jpg")
    with pytest.raises(InputError, match=r"holds no images .* 1 link that leads out of it: set ingest.source.follow_"):
        ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "links")}))


def test_any_number_of_workers_gives_the_same_parts(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 140)
    put(tmp_path / "in" / "050.jpg", b"broken")
    one = ingest(tmp_path / "one", config(source, workers=1))
    two = ingest(tmp_path / "two", config(source, workers=2))
    assert one.digest == two.digest
    assert one.fingerprint == two.fingerprint


def test_ingest_into_memory(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 3)
    local = ingest(tmp_path / "ws", config(source))
    remote = ingest(f"memory://{tmp_path.name}/ws", config(source))
    assert remote.digest == local.digest
    row = rows(remote)[1]
    reader = ShardReader(shard_uris(remote))
    assert reader.read(row["shard"], row["offset"], row["size"]) == picture(1)


def test_ingest_from_memory(tmp_path: Path) -> None:
    root = Location.of(f"memory://{tmp_path.name}/in")
    for seed in range(3):
        (root / f"{seed:03d}.jpg").write(picture(seed))
    (root / ".hidden" / "x.jpg").write(picture(4))
    (root / "001.txt").write(b"said")
    by_name = by_source(ingest(tmp_path / "ws", config({"kind": "folder", "path": root.uri})))
    assert sorted(by_name) == ["000.jpg", "001.jpg", "002.jpg"]
    assert by_name["001.jpg"]["alt_text"] == "said"


def test_a_second_run_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = config(folder_of(tmp_path / "in", 2))
    first = ingest(tmp_path / "ws", section)
    monkeypatch.setattr("pipeline.ingest.stage._ingested", lambda *_: pytest.fail("ran again"))
    assert ingest(tmp_path / "ws", section).digest == first.digest


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda _: None, r"in is not there; expected a folder of images \(\.jpg"),
        (lambda path: put(path, "x"), "in is a file; expected a folder"),
        (
            lambda path: put(path / "readme.md", "x"),
            r"in holds no images \(1 other file\); expected files that end in",
        ),
        (lambda path: put(path / "x.jpg", "x"), r"no image of .*in can be used \(1 in all, .*not an image"),
    ],
)
def test_bad_folders_are_named(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path / "in")
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "in")}))
    assert Workspace(tmp_path / "ws").manifests("ingest") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "no.csv is not there"),
        ("c.csv", "path,caption\nx,y\n", r"has no column 'file' \(file_column\); it has path, caption"),
        ("c.json", "{}", "of no known kind; expected a name that ends in .parquet .csv .tsv .jsonl"),
        ("c.parquet", "PAR?", "cannot be read as parquet"),
        ("c.csv", "file,caption\n000.jpg,\n", "column 'caption' of c.csv holds no text"),
        ("c.csv", "file,caption\n/abs/000.jpg,x\n", r"no caption of c.csv \(1 in all\) is .* paths .* like 000.jpg"),
    ],
)
def test_bad_caption_tables_are_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    source = folder_of(tmp_path / "in", 1)
    if content is not None:
        put(tmp_path / "in" / name, content)
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "ws", config({**source, "captions": name}))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=4), size=st.integers(1, 4))
def test_after_any_history_the_result_is_what_the_folder_holds(
    tmp_path_factory: pytest.TempPathFactory, history: list[set[int]], size: int
) -> None:
    root = tmp_path_factory.mktemp("history")
    placed: dict[str, str] = {}
    fingerprints: set[str] = set()
    for present in history:
        for seed in range(8):
            (root / "in" / f"{seed:03d}.jpg").unlink(missing_ok=True)
        for seed in present:
            file = put(root / "in" / f"{seed:03d}.jpg", picture(seed) if seed != 3 else b"never an image")
            os.utime(file, ns=(seed, seed))
        if present == {3}:
            continue  # nothing usable: an error of its own
        manifest = ingest(root / "ws", config({"kind": "folder", "path": str(root / "in")}, shard_images=size))
        by_name = by_source(manifest)
        usable = {name: row["image_id"] for name, row in by_name.items() if row["status"] == "ok"}
        assert usable == {f"{seed:03d}.jpg": image_id(picture(seed)) for seed in present - {3}}
        if manifest.fingerprint not in fingerprints:  # failed rows of an earlier result may have gone with their file
            assert ("003.jpg" in by_name) == (3 in present)
        fingerprints.add(manifest.fingerprint)
        reader = ShardReader(shard_uris(manifest))
        for name, row in by_name.items():
            if row["status"] == "ok":
                assert reader.read(row["shard"], row["offset"], row["size"]) == (root / "in" / name).read_bytes()
        for shard in shard_names(manifest):  # a shard's usable images never change once it is there
            names = [row["source"] for row in shard_images(manifest, shard).to_pylist() if row["status"] == "ok"]
            assert placed.setdefault(shard, str(names)) == str(names)
