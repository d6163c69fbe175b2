"""WebDataset tars: indexed where they are, damage found and named, additions noticed."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.ingest import shard_names, shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.pipeline.images import by_source, config, ingest, make_tar, picture, put, rows


def tars(path: object) -> dict[str, object]:
    return {"kind": "webdataset", "path": str(path)}


def test_tars_are_read_in_place_and_ids_equal_those_of_the_files(tmp_path: Path) -> None:
    members = {f"{seed:03d}.jpg": picture(seed) for seed in range(4)}
    for name, data in members.items():
        put(tmp_path / "in" / name, data)
    make_tar(tmp_path / "tars" / "a-0.tar", dict(list(members.items())[:2]))
    make_tar(tmp_path / "tars" / "a-1.tar", dict(list(members.items())[2:]))
    folder = by_source(ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "in")})))
    manifest = ingest(tmp_path / "ws", config(tars(tmp_path / "tars")))
    found = by_source(manifest)
    assert {n: r["image_id"] for n, r in found.items()} == {n: r["image_id"] for n, r in folder.items()}
    assert shard_uris(manifest) == {f"a-{n}": str(tmp_path / "tars" / f"a-{n}.tar") for n in range(2)}
    reader = ShardReader(shard_uris(manifest))
    for name, row in found.items():
        assert reader.read(row["shard"], row["offset"], row["size"]) == members[name]
        assert row["key"] == name.removesuffix(".jpg")
    assert not list((tmp_path / "ws").rglob(f"{Path(manifest.store).name}/**/*.tar"))


def test_alt_text_and_url_of_txt_and_json_members(tmp_path: Path) -> None:
    members = {
        "a.jpg": picture(0),
        "a.txt": b"plain",
        "a.json": json.dumps({"caption": "json", "url": "http://x/a"}).encode(),
        "b.json": json.dumps({"caption": "json only"}).encode(),  # before its image
        "b.jpg": picture(1),
        "c.jpg": picture(2),
        "c.json": b"{broken",
        "d.cls": b"7",
        "d.jpg": picture(3),
    }
    manifest = ingest(tmp_path / "ws", config(tars(make_tar(tmp_path / "t.tar", members))))
    found = {row["key"]: (row["alt_text"], row["url"]) for row in rows(manifest)}
    assert found == {"a": ("plain", "http://x/a"), "b": ("json only", None), "c": (None, None), "d": (None, None)}
    assert "JSON files that cannot be read: 1, such as c.json" in manifest.warnings[0]
    assert "files that end in .cls: 1, such as d.cls" in manifest.warnings[0]
    assert "2 images have no alt text (of 4)" in manifest.warnings[1]
    assert manifest.counts["with_alt_text"] == 2


def test_keys_end_at_the_first_dot_and_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, seed in (
            ("x/a.left.jpg", 0),
            ("x/a.right.jpg", 1),
            ("y/a.jpg", 0),
            ("y/a.jpg", 2),
            ("z/b.v2.jpg", 3),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(picture(seed))
            tar.addfile(member, io.BytesIO(picture(seed)))
    keys = [row["key"] for row in rows(ingest(tmp_path / "ws", config(tars(path))))]
    assert sorted(keys) == ["x/a.left.jpg", "x/a.right.jpg", "y/a.jpg", "y/a.jpg#2", "z/b"]


def test_a_tar_cut_short_loses_its_tail_and_says_so(tmp_path: Path) -> None:
    members = {f"{seed}.jpg": picture(seed, (64, 64)) for seed in range(3)}
    whole = make_tar(tmp_path / "t.tar", members)
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        third = tar.getmembers()[2].offset_data
    for end, expected in (
        (third + 100, ["ok", "ok", "error"]),
        (third - 512, ["ok", "ok"]),
        (third - 300, ["ok", "ok"]),
    ):
        cut = put(tmp_path / f"cut{end}" / "t.tar", data[:end])
        manifest = ingest(tmp_path / f"ws{end}", config(tars(cut)))
        assert [row["status"] for row in rows(manifest)] == expected
        assert any("t.tar" in warning and "lost" in warning for warning in manifest.warnings)
    assert ingest(tmp_path / "ws", config(tars(whole))).warnings == ()


def test_a_truncated_image_inside_a_sound_tar_is_an_error_row(tmp_path: Path) -> None:
    cut = picture(0, (64, 64))[:-200]
    manifest = ingest(tmp_path / "ws", config(tars(make_tar(tmp_path / "t.tar", {"a.jpg": cut, "b.jpg": picture(1)}))))
    errors = {row["key"]: row["error"] for row in rows(manifest)}
    assert "truncated" in errors["a"]
    assert errors["b"] is None


def test_new_tars_are_added_and_known_ones_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tar(tmp_path / "in" / "0.tar", {"a.jpg": picture(0)})
    section = config(tars(tmp_path / "in" / "*.tar"))
    before = ingest(tmp_path / "ws", section)
    make_tar(tmp_path / "in" / "1.tar", {"a.jpg": picture(1)})
    opened = []
    from pipeline.ingest import webdataset

    monkeypatch.setattr(
        webdataset,
        "scan",
        lambda where, rules, real=webdataset.scan: (opened.append(where.name), real(where, rules))[1],
    )
    after = ingest(tmp_path / "ws", section)
    assert opened == ["1.tar"]
    assert shard_names(after) == ["0", "1"]
    os.utime(tmp_path / "in" / "0.tar", ns=(1, 1))
    assert ingest(tmp_path / "ws", section).digest == after.digest
    make_tar(tmp_path / "in" / "0.tar", {"a.jpg": picture(9)})
    changed = ingest(tmp_path / "ws", section)
    assert shard_names(changed) == ["1", "in-0"]  # another tar now: its captions must not be mixed up
    assert next(part.digest for part in before.parts) not in {part.digest for part in changed.parts}


def test_tars_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in ("x", "y", "z"):
        make_tar(tmp_path / folder / "0.tar", {"a.jpg": picture(ord(folder))})
    paths = [str(tmp_path / "x"), str(tmp_path / "y" / "0.tar"), str(tmp_path / "z" / "*.tar")]
    manifest = ingest(tmp_path / "ws", config({"kind": "webdataset", "path": paths}))
    assert shard_names(manifest) == ["0", "y-0", "z-0"]
    assert len({row["image_id"] for row in rows(manifest)}) == 3


def test_tars_on_another_file_system(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", {"a.jpg": picture(0), "a.txt": b"far", "b.jpg": picture(1)})
    Location.of(f"memory://{tmp_path.name}/tars/t.tar").write(tar.read_bytes())
    manifest = ingest(tmp_path / "ws", config(tars(f"memory://{tmp_path.name}/tars/*.tar")))
    row = rows(manifest)[0]
    assert (row["key"], row["alt_text"]) == ("a", "far")
    assert ShardReader(shard_uris(manifest)).read("t", row["offset"], row["size"]) == picture(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, "t.tar is not there; expected a tar, a folder of tars or a glob"),
        ("t.tar", b"this is no tar" * 100, "t.tar is not a tar"),
        ("t.tar", b"", "t.tar is not a tar"),
        ("t.tar", gzip.compress(b"x" * 2000, mtime=0), r"t.tar is compressed \(gzip\).*unpack it"),
    ],
)
def test_bad_tars_are_named(tmp_path: Path, name: str | None, content: bytes, message: str) -> None:
    if name is not None:
        put(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "ws", config(tars(tmp_path / "t.tar")))


def test_a_tar_without_images_a_glob_without_files_and_an_empty_folder(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "texts" / "t.tar", {"a.txt": b"x", "a.mp3": b"y"})
    with pytest.raises(InputError, match=r"t.tar holds no images \(files that end in .mp3, texts .*\); expected .jpg"):
        ingest(tmp_path / "ws", config(tars(tar)))
    with pytest.raises(InputError, match=r"the glob .*none-\*.tar matches no file"):
        ingest(tmp_path / "ws", config(tars(tmp_path / "none-*.tar")))
    with pytest.raises(InputError, match=r"is not there; .*; braces are no glob here: write \*, or a list"):
        ingest(tmp_path / "ws", config(tars(tmp_path / "t-{0..9}.tar")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder .*empty holds no files that end in .tar"):
        ingest(tmp_path / "ws", config(tars(tmp_path / "empty")))


def test_tars_cannot_be_resized() -> None:
    with pytest.raises(ConfigError, match="indexed where they are and cannot be resized; leave resize out"):
        config(tars("x.tar"), resize=64)
