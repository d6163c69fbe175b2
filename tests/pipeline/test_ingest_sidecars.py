"""Folders as people have them: texts beside pictures, pictures of any name, odd names, sizes beyond a limit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ingest import folder, shard_names, sidecars, stage
from pipeline.storage import Location
from tests.pipeline.images import by_source, config, ingest, picture, put

JPEG = picture(0)


def made(path: Path, files: dict[str, bytes | str]) -> dict[str, object]:
    for name, data in files.items():
        put(path / name, data)
    return {"kind": "folder", "path": str(path)}


def test_texts_beside_pictures_and_what_was_left_out(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "a.jpg": JPEG,
        "a.TXT": "capitals",
        "b.jpg": picture(1),
        "b.jpg.txt": "full name",
        "c.png": picture(2, kind="PNG"),
        "c.caption": "kohya",
        "22.05.jpg": picture(3),
        "22.05.txt": "\ufeffwith a mark",
        "22.06.jpg": picture(4),
        "d.jpg": picture(5),
        "d.json": '{"caption": "", "text": "of json \\ud83c"}',
        "e.jpg": picture(6),
        "e.txt": b"caf\xe9",
        "f.jpg": picture(7),
        "f.txt": "x" * 200,
        "g\u0301.jpg": picture(8),
        "\u01f5.txt": "another form of its name",
        "classes.txt": "no picture",
        "s0.input.jpg": picture(9),
        "s0.outputs.txt": "roles are for tars",
        "notes.md": "x",
        "y/z.npy": "x",
    }
    source = {**made(tmp_path / "in", files), "max_text_bytes": 100}
    manifest = ingest(tmp_path / "ws", config(source))
    assert {name: row["alt_text"] for name, row in by_source(manifest).items()} == {
        "a.jpg": "capitals",
        "b.jpg": "full name",
        "c.png": "kohya",
        "22.05.jpg": "with a mark",
        "22.06.jpg": None,
        "d.jpg": "of json \ufffd",
        "e.jpg": None,
        "f.jpg": None,
        "g\u0301.jpg": "another form of its name",
        "s0.input.jpg": None,
    }
    assert (manifest.counts["images"], manifest.counts["with_alt_text"]) == (10, 6)
    assert manifest.counts["left_out"] == {
        "texts without a picture of their name": 2,
        "files that end in .md": 1,
        "files that end in .npy": 1,
        "texts longer than ingest.source.max_text_bytes": 1,
        sidecars.NOT_UTF: 1,
    }
    told = " ".join(manifest.warnings)
    assert "texts without a picture of their name: 2, such as classes.txt" in told
    assert "half surrogates replaced by U+FFFD: 1, such as d.json" in told
    assert "4 images have no alt text (of 10)" in told
    windows = by_source(ingest(tmp_path / "ws", config({**source, "encoding": "windows-1252"})))
    assert windows["e.jpg"]["alt_text"] == "café"


def test_a_text_beside_another_that_counts_is_told(tmp_path: Path) -> None:
    same = {"b.jpg": picture(1), "b.txt": "a cat", "b.json": '{"caption": "a cat", "width": 5}'}  # as of img2dataset
    files = {"a.jpg": JPEG, "a.txt": "a dog", "a.caption": "a dog on grass", "a.text": " ", **same}
    source = made(tmp_path / "in", files)
    manifest = ingest(tmp_path / "ws", config(source))
    assert [row["alt_text"] for row in by_source(manifest).values()] == ["a dog", "a cat"]
    assert manifest.counts["left_out"] == {sidecars.BESIDE: 1}
    assert manifest.warnings == (f"not used: {sidecars.BESIDE}: 1, such as a.caption",)
    named = ingest(tmp_path / "ws", config({**source, "text": ["caption", "txt"]}))
    assert [row["alt_text"] for row in by_source(named).values()] == ["a dog on grass", "a cat"]
    assert named.counts["left_out"] == {}


def test_pictures_are_known_by_content(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "a.jfif": JPEG,
        "b.jpe": picture(1),
        "none": picture(2, kind="PNG"),
        "none.txt": "a text",
        "photo.php": picture(3, kind="WEBP"),
        "wrong.png": picture(4),
        "avif.image": picture(5, kind="AVIF"),
        "x.bmp": picture(6, kind="BMP"),
        "old.image": picture(6, kind="BMP"),
        "grey.pgm": picture(7, kind="PPM"),
        "lists": "P1 is no picture, BM neither",
        "raw.nef": picture(8, kind="TIFF"),
        "empty": b"",
    }
    manifest = ingest(tmp_path / "ws", config(made(tmp_path / "in", files)))
    assert {name: row["format"] for name, row in by_source(manifest).items()} == {
        "a.jfif": "JPEG",
        "avif.image": "AVIF",
        "b.jpe": "JPEG",
        "grey.pgm": "PPM",
        "none": "PNG",
        "old.image": "BMP",
        "photo.php": "WEBP",
        "wrong.png": "JPEG",
        "x.bmp": "BMP",
    }
    assert by_source(manifest)["none"]["alt_text"] == "a text"
    assert manifest.counts["left_out"] == {"files without a usual suffix": 2, "files that end in .nef": 1}
    remote = Location.of(f"memory://{tmp_path.name}/in")
    for name in ("none", "none.txt", "a.jfif"):
        data = files[name]
        (remote / name).write(data if isinstance(data, bytes) else data.encode())
    by_name = by_source(ingest(tmp_path / "far", config({"kind": "folder", "path": remote.uri})))
    assert {name: row["alt_text"] for name, row in by_name.items()} == {"a.jfif": None, "none": "a text"}


def test_names_that_are_not_utf8_are_rows_with_an_escaped_name(tmp_path: Path) -> None:
    source = made(tmp_path / "in", {"b.jpg": picture(1)})
    (tmp_path / "in" / "caf\udce9").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9/\xe9.jpg")).write_bytes(JPEG)
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9/\xe9.txt")).write_text("a text")
    section = config(source)
    before = ingest(tmp_path / "ws", section)
    assert {name: row["alt_text"] for name, row in by_source(before).items()} == {
        "b.jpg": None,
        r"caf\xe9/\xe9.jpg": "a text",
    }
    put(tmp_path / "in" / "new.jpg", picture(2))
    after = ingest(tmp_path / "ws", section)
    assert by_source(before).items() <= by_source(after).items()


def test_memory_is_bounded_by_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = made(tmp_path / "in", {f"{n}.jpg": picture(n, (64, 64)) for n in range(6)})
    size = max((tmp_path / "in" / f"{n}.jpg").stat().st_size for n in range(6))
    manifest = ingest(tmp_path / "ws", config(source, shard_bytes=2 * size))
    assert shard_names(manifest) == ["000000", "000001", "000002"]
    with open(tmp_path / "in" / "huge.jpg", "wb") as file:
        file.truncate(8 << 30)  # takes no room on the disk
    with open(tmp_path / "in" / "0.txt", "wb") as file:
        file.truncate(8 << 30)
    manifest = ingest(tmp_path / "ws", config({**source, "max_image_bytes": size}))
    by_name = by_source(manifest)
    assert "longer than ingest.source.max_image_bytes (8,589,934,592 bytes)" in by_name["huge.jpg"]["error"]
    assert [row["status"] for name, row in sorted(by_name.items()) if name != "huge.jpg"] == ["ok"] * 6
    assert manifest.counts["left_out"] == {"texts longer than ingest.source.max_text_bytes": 1}


def test_counts_stay_with_shards_that_are_not_made_again(tmp_path: Path) -> None:
    source = made(tmp_path / "in", {"a.jpg": JPEG, "a.txt": b"\xff\xff", "b.jpg": picture(1), "b.txt": "b"})
    section = config(source, shard_images=2)
    first = ingest(tmp_path / "ws", section)
    put(tmp_path / "in" / "c.jpg", picture(2))
    second = ingest(tmp_path / "ws", section)
    assert second.counts["left_out"] == first.counts["left_out"] != {}
    assert {part.name: part.digest for part in first.parts}.items() <= {p.name: p.digest for p in second.parts}.items()


def test_folders_of_an_earlier_version_keep_what_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{n}.jpg": picture(n) for n in range(4)} | {"1.txt": b"one", "2.TXT": b"not found before", "3.txt": b"3"}
    section = config(made(tmp_path / "in", files), shard_images=2)
    with monkeypatch.context() as earlier:
        earlier.setattr(folder, "READING", 1)
        earlier.setattr(folder, "SUFFIXES", (".txt",))
        earlier.setattr("pipeline.ingest.folder.suffix_of", lambda name: f".{name.rpartition('.')[2]}")
        earlier.setattr("tests.pipeline.images.STAGE", replace(stage.STAGE, version=1))
        before = ingest(tmp_path / "ws", section)
    after = ingest(tmp_path / "ws", section)
    assert [by_source(m)["2.jpg"]["alt_text"] for m in (before, after)] == [None, "not found before"]
    assert shard_names(after) == ["000000", "000002"]  # the shard of 2.jpg is another now, the first is not
    kept = {part.name: part.digest for part in before.parts if part.detail["shard"] == "000000"}
    assert kept.items() <= {part.name: part.digest for part in after.parts}.items()
    ids = [{name: row["image_id"] for name, row in by_source(m).items()} for m in (before, after)]
    assert ids[0] == ids[1]  # which captions are joined by


def test_texts_beside_pictures_are_not_mixed_with_a_table(tmp_path: Path) -> None:
    source = made(tmp_path / "in", {"a.jpg": JPEG, "a.txt": "beside", "t/c.csv": "file,caption\na.jpg,told\n"})
    for path in ("t/c.csv", str(tmp_path / "in" / "t" / "c.csv")):
        manifest = ingest(tmp_path / "ws", config({**source, "captions": path}))
        assert by_source(manifest)["a.jpg"]["alt_text"] == "told"
        assert manifest.counts["left_out"] == {"texts beside pictures, since ingest.source.captions names a table": 1}


def test_a_folder_of_nothing_but_unknown_names(tmp_path: Path) -> None:
    source = made(tmp_path / "in", {"a": "text", "b.dat": "x"})
    with pytest.raises(InputError, match=r"holds no images \(2 other files\)"):
        ingest(tmp_path / "ws", config(source))


def test_the_first_line_alone_if_asked(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "a.jpg": JPEG,
        "a.txt": "\n a title \r\nand more",
        "b.jpg": picture(1),
        "b.json": '{"caption": "of json\\nwhole"}',
    }
    source = made(tmp_path / "in", files)
    for lines, expected in (("all", "a title \r\nand more"), ("first", "a title")):
        rows = by_source(ingest(tmp_path / lines, config({**source, "lines": lines})))
        assert (rows["a.jpg"]["alt_text"], rows["b.jpg"]["alt_text"]) == (expected, "of json\nwhole")
