"""What people put into WebDataset tars: dots and roles in names, texts of every kind, damage, links, false headers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.ingest import sidecars, stage, webdataset
from pipeline.ingest.sidecars import TextRules
from pipeline.ingest.tally import Tally
from pipeline.ingest.tars import TarIndex, scan
from pipeline.storage import Location
from tests.pipeline.images import config, ingest, make_tar, picture, put, rows

JPEG = picture(0)
Members = list[tuple[str, bytes | str | tarfile.TarInfo]]


def pack(members: Members, **options: Any) -> bytes:
    """A tar of members in this order, names may repeat; a `TarInfo` is a header without content."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            data = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def index(tmp_path: Path, members: Members | bytes, rules: TextRules | None = None) -> TarIndex:
    data = members if isinstance(members, bytes) else pack(members)
    return scan(Location.of(put(tmp_path / "t.tar", data)), rules)


def texts(tmp_path: Path, members: Members | bytes, rules: TextRules | None = None) -> dict[str, str | None]:
    return {picture.key: picture.alt_text for picture in index(tmp_path, members, rules).pictures}


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # a name up to its last dot, before the key
        (
            [("22.05.png", JPEG), ("22.05.txt", "boat"), ("22.06.png", JPEG), ("22.06.txt", "house")],
            {"22.05.png": "boat", "22.06.png": "house"},
        ),
        ([("v1.0/a.jpg", JPEG), ("v1.0/a.txt", "dots in folders")], {"v1.0/a": "dots in folders"}),
        (
            [("a.left.jpg", JPEG), ("a.right.jpg", JPEG), ("a.txt", "both")],
            {"a.left.jpg": "both", "a.right.jpg": "both"},
        ),
        (
            [("a.left.txt", "left"), ("a.json", '{"caption": "key"}'), ("a.left.jpg", JPEG), ("a.right.jpg", JPEG)],
            {"a.left.jpg": "left", "a.right.jpg": "key"},
        ),
        (
            [("a.jpg", JPEG), ("a.png", JPEG), ("a.jpg.txt", "one"), ("a.txt", "other")],
            {"a.jpg": "one", "a.png": "other"},
        ),
        # never to another picture
        ([("22.05.png", JPEG), ("22.06.txt", "of a picture that is not there")], {"22": None}),
        (
            [("a.left.jpg", JPEG), ("a.right.jpg", JPEG), ("a.outputs.txt", "whose?")],
            {"a.left.jpg": None, "a.right.jpg": None},
        ),
        ([("a.png", JPEG), ("a.jpg.txt", "of the jpg")], {"a": None}),
        # roles
        ([("s.input.jpg", JPEG), ("s.outputs.txt", "said")], {"s": "said"}),
        ([("s.jpg", JPEG), ("s.caption.txt", "named"), ("s.prompt.txt", "not")], {"s": "named"}),
        ([("s.jpg", JPEG), ("s.question.txt", "q"), ("s.answer.txt", "a")], {"s": None}),
        ([("s.image.jpg", JPEG), ("s.meta.json", '{"text": "in a role"}')], {"s": "in a role"}),
        # kinds of texts
        ([("s.jpg", JPEG), ("s.caption", "suffix")], {"s": "suffix"}),
        ([("s.JPG", JPEG), ("s.TXT", "capitals\r\n")], {"s": "capitals"}),
        ([("s.jpg", JPEG), ("s.json", '{"caption": " ", "alt_text": null, "text": "third"}')], {"s": "third"}),
        ([("s.jpg", JPEG), ("s.json", '{"caption": ["", "first", "second"]}')], {"s": "first"}),
        ([("s.jpg", JPEG), ("s.json", '"a text"')], {"s": "a text"}),
        ([("s.jpg", JPEG), ("s.txt", " "), ("s.json", '{"caption": "of json"}')], {"s": "of json"}),
        ([("./s.jpg", JPEG), ("s.txt", "dot and slash")], {"./s": "dot and slash"}),
        ([("e\u0301.jpg", JPEG), ("\u00e9.txt", "composed")], {"e\u0301": "composed"}),
        ([("x" * 150 + ".jpg", JPEG), ("x" * 150 + ".txt", "long name")], {"x" * 150: "long name"}),
    ],
)
def test_which_text_belongs_to_which_picture(tmp_path: Path, members: Members, expected: dict[str, str]) -> None:
    assert texts(tmp_path, members) == expected
    backwards = {key.removesuffix("#2"): text for key, text in texts(tmp_path, members[::-1]).items()}
    assert backwards == expected  # whatever comes first


def test_names_that_count_are_a_setting(tmp_path: Path) -> None:
    members: Members = [
        ("a.jpg", JPEG),
        ("a.txt", "plain"),
        ("a.json", '{"long": "of json", "caption": "usual"}'),
        ("b.jpg", JPEG),
        ("b.long.txt", "role"),
        ("c.jpg", JPEG),
        ("c.txt", "plain"),
    ]
    assert texts(tmp_path, members) == {"a": "plain", "b": "role", "c": "plain"}
    indexed = index(tmp_path, members, TextRules(("long",)))
    assert [picture.alt_text for picture in indexed.pictures] == ["of json", "role", None]
    assert indexed.left_out.to_json() == {"texts that ingest.source.text does not name": [1, "c.txt"]}
    assert texts(tmp_path, members, TextRules(("long", "txt"))) == {"a": "of json", "b": "role", "c": "plain"}


def test_pictures_of_one_name_get_their_own_text_or_none(tmp_path: Path) -> None:
    own: Members = [("s.png", picture(i)) if j else ("s.txt", f"text {i}") for i in range(3) for j in (1, 0)]
    assert list(texts(tmp_path, own).values()) == ["text 0", "text 1", "text 2"]
    grouped = index(tmp_path, [*own[::2], *own[1::2]])
    assert [picture.alt_text for picture in grouped.pictures] == [None] * 3
    assert grouped.left_out.counts() == {
        "texts of several pictures of one name, of which it cannot be told whose they are": 3
    }
    one_lacks = index(tmp_path, [*own[:3], *own[4:]])
    assert [picture.alt_text for picture in one_lacks.pictures] == [None] * 3
    replaced = index(tmp_path, [("a.jpg", JPEG), ("a.txt", "old"), ("a.txt", "new")])
    assert replaced.pictures[0].alt_text == "new"
    assert replaced.left_out.counts() == {"texts that a later member of the same name replaces": 1}


def test_what_cannot_be_used_costs_itself_and_is_counted(tmp_path: Path) -> None:
    members: Members = [
        *[(f"{name}.jpg", JPEG) for name in "abcdefgh"],
        ("a.json", "[" * 200_000),
        ("b.json", '{"caption": "half \\ud83c"}'),
        ("c.txt", "x" * 2000),
        ("d.txt", b"caf\xe9"),
        ("e.txt", b"nul\0"),
        ("f.json", '{"caption": {"en": "object"}}'),
        ("g.json", '{"id": 7}'),
        ("h.txt", "  "),
        ("nobody.txt", "alone"),
        ("i.jpg", JPEG),
        ("i.json", json.dumps({"caption": "short enough", "boxes": "x" * 2000})),
        ("j.jpg", JPEG),
        ("j.json", json.dumps({"caption": "x" * 2000})),
        ("._a.jpg", b"resource fork"),
        ("inner.tar", pack([("z.jpg", JPEG)])),
        ("e.npy", b"\x93NUMPY"),
    ]
    indexed = index(tmp_path, members, TextRules(max_bytes=1000))
    assert indexed.left_out.to_json() == {
        "texts longer than ingest.source.max_text_bytes": [3, "a.json"],
        sidecars.NOT_UTF: [1, "d.txt"],
        "texts that are no text, but an object": [1, "f.json"],
        "JSON files without a text in the fields that count": [1, "g.json"],
        "texts that are empty": [1, "h.txt"],
        "texts without a picture of their name": [1, "nobody.txt"],
        "hidden files, or files of operating systems": [1, "._a.jpg"],
        "files that end in .tar": [1, "inner.tar"],
        "files that end in .npy": [1, "e.npy"],
    }
    said = {s.key: s.alt_text for s in indexed.pictures if s.alt_text is not None}
    assert said == {"b": "half \ufffd", "e": "nul", "i": "short enough"}
    assert len(indexed.mended.counts()) == 2
    deep = index(tmp_path, members)
    assert deep.left_out.to_json()["JSON files that cannot be read"] == [1, "a.json"]
    assert texts(tmp_path, members, TextRules(encoding="windows-1252"))["d"] == "café"


def test_all_texts_of_a_tar_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ingest.tars.MOST_TEXTS", 256)
    members: Members = [
        (f"{n:03d}.{kind}", JPEG if kind == "jpg" else "x" * 10) for n in range(300) for kind in ("jpg", "txt")
    ]
    indexed = index(tmp_path, members, TextRules(max_bytes=10))
    assert [picture.alt_text is not None for picture in indexed.pictures] == [True] * 256 + [False] * 44
    assert sum(indexed.left_out.counts().values()) == 44


def test_pictures_are_known_by_content_and_links_lead_to_them(tmp_path: Path) -> None:
    members: Members = [
        ("a", JPEG),
        ("a.txt", "no suffix"),
        ("b.jfif", JPEG),
        ("c.image", picture(1, kind="PNG")),
        ("d.npy", JPEG),
        ("first.txt", "shared"),
        ("e.jpg", link(tarfile.LNKTYPE, "b.jfif")),
        ("e.txt", link(tarfile.LNKTYPE, "first.txt")),
        ("sub/f.jpg", link(tarfile.SYMTYPE, "../e.jpg")),
        ("g.jpg", link(tarfile.SYMTYPE, "../../etc/passwd")),
        ("folder.jpg", link(tarfile.DIRTYPE, "")),
        ("fifo.jpg", link(tarfile.FIFOTYPE, "")),
        ("empty.jpg", b""),
    ]
    indexed = index(tmp_path, members)
    assert [s.key for s in indexed.pictures] == ["a", "b", "c", "empty", "e", "sub/f"]
    assert [s.alt_text for s in indexed.pictures] == ["no suffix", None, None, None, "shared", None]
    places = {s.key: (s.offset, s.size) for s in indexed.pictures}
    assert places["e"] == places["sub/f"] == places["b"]
    assert indexed.left_out.to_json() == {
        "files that end in .npy": [1, "d.npy"],
        "links to what is not in the tar": [1, "g.jpg"],
        "texts without a picture of their name": [1, "first.txt"],
    }


def header(name: str, size: int, **fields: Any) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.PAX_FORMAT if "pax_headers" in fields else tarfile.GNU_FORMAT)


def pax(records: dict[str, str], name: str, size: int, data: bytes) -> bytes:
    """A member behind an extended header of these records, as they stand."""
    body = b""
    for key, value in records.items():
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        body += f"{length} {key}={value}\n".encode()
    padded = data.ljust(-(-len(data) // 512) * 512, b"\0")
    return header("x", len(body), type=tarfile.XHDTYPE) + body.ljust(512, b"\0") + header(name, size) + padded


SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.realsize": "5000",
    "GNU.sparse.name": "bad.jpg",
}


@pytest.mark.parametrize(
    ("bad", "error", "damage"),
    [
        (header("bad.jpg", -1), "negative", None),
        (header("bad.jpg", -512), "negative", None),
        (header("bad.jpg", -(1 << 40)), "negative", None),
        (pax({"size": "-512"}, "bad.jpg", 0, b""), "negative", None),
        (pax({"size": "9" * 30}, "bad.jpg", 0, b""), "the tar ends inside it", "longer than the tar"),
        (header("bad.jpg", 1 << 50), "the tar ends inside it", "longer than the tar"),
        (header("bad.jpg", 1 << 33, type=tarfile.XHDTYPE), None, "longer than any header"),
        (header("bad.jpg", 1 << 33, type=tarfile.GNUTYPE_LONGNAME), None, "longer than any"),
        (pax(SPARSE, "bad.jpg", 1024, b"1\n0\n5\n".ljust(1024, b"\0")), "sparse", None),
        (pax(SPARSE, "bad.jpg", 512, b"99999\n0\n5\n".ljust(512, b"\0")), "not an image", "damaged"),
        (b"\xff" * 512, None, "bad checksum"),
        (b"\0" * 2048, None, None),  # a hole, or the end of a tar that another was appended to
    ],
)
def test_a_header_that_lies_costs_its_own_row(
    tmp_path: Path, bad: bytes, error: str | None, damage: str | None
) -> None:
    tar = put(tmp_path / "in" / "t.tar", pack([("a.jpg", JPEG)])[:-9216].rstrip(b"\0"))
    sound = pack([("a.jpg", JPEG), ("a.txt", "first")])
    end = len(sound.rstrip(b"\0")) // 512 * 512 + 512
    tar.write_bytes(sound[:end] + bad + pack([("z.jpg", picture(1)), ("z.txt", "last")]))
    manifest = ingest(tmp_path / "ws", config({"kind": "webdataset", "path": str(tar)}))
    indexed = {row["key"]: row for row in rows(manifest)}
    assert {key: indexed[key]["alt_text"] for key in ("a", "z")} == {"a": "first", "z": "last"}
    assert indexed["a"]["status"] == indexed["z"]["status"] == "ok"
    assert ("bad" in indexed) == (error is not None)
    if error is not None:
        assert error in indexed["bad"]["error"]
    assert (
        any(damage in warning for warning in manifest.warnings) if damage else "damaged" not in str(manifest.warnings)
    )


def test_one_bad_tar_of_many_is_named_and_all_bad_is_the_end(tmp_path: Path) -> None:
    bad = {
        "empty.tar": b"",
        "packed.tar.gz": gzip.compress(pack([("z.jpg", JPEG)])),
        "texts.tar": pack([("1.txt", b"a boat")]),
        "zeros.tar": bytes(10240),
        "no.TAR": b"this is no tar" * 100,
    }
    for name, data in bad.items():
        put(tmp_path / "in" / name, data)
    put(tmp_path / "in" / "stats.json", "{}")
    section = config({"kind": "webdataset", "path": str(tmp_path / "in")})
    with pytest.raises(InputError, match=r"none of the 5 tars can be used; the first: .*empty.tar is not a tar"):
        ingest(tmp_path / "ws", section)
    for n in range(2):
        make_tar(tmp_path / "in" / f"{n}.tar", {"a.jpg": picture(n)})
    manifest = ingest(tmp_path / "ws", section)
    assert (manifest.counts["images"], manifest.counts["unusable_tars"]) == (2, 5)
    assert "5 of 7 tars cannot be used" in manifest.warnings[0]
    assert all(name in manifest.warnings[0] for name in bad)
    assert manifest.counts["left_out"] == {"files that end in .json": 1}
    make_tar(tmp_path / "in" / "empty.tar", {"b.jpg": picture(7)})
    again = ingest(tmp_path / "ws", section)
    assert (again.counts["images"], again.counts["unusable_tars"]) == (3, 4)
    assert {part.name for part in manifest.parts} < {part.name for part in again.parts}


def test_a_picture_beyond_the_limit_is_an_error_row(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t.tar", {"a.jpg": JPEG, "b.jpg": picture(1, (200, 200))})
    source = {"kind": "webdataset", "path": str(tar), "max_image_bytes": len(JPEG)}
    errors = [row["error"] for row in rows(ingest(tmp_path / "ws", config(source)))]
    assert errors[0] is None
    assert "longer than ingest.source.max_image_bytes" in errors[1]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    tar = pack(
        [("caf\xe9.jpg", JPEG), ("caf\xe9.txt", "text"), ("b.jpg", JPEG)],
        format=tarfile.GNU_FORMAT,
        encoding="latin-1",
    )
    put(tmp_path / "in" / "t.tar", tar)
    Path(str(tmp_path / "in") + "/caf\udce9.tar").write_bytes(tar)
    manifest = ingest(tmp_path / "ws", config({"kind": "webdataset", "path": str(tmp_path / "in")}))
    assert {row["key"]: row["alt_text"] for row in rows(manifest)} == {"b": None, r"caf\xe9": "text"}
    assert manifest.counts["mended"] == {"a name that is not UTF-8, escaped": 2}
    assert r"the name of the tar" in manifest.warnings[0]


def test_tars_of_an_earlier_version_are_indexed_anew_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tar(tmp_path / "in" / "same.tar", {"a.jpg": JPEG, "a.txt": b"text"})
    make_tar(tmp_path / "in" / "lost.tar", {"22.05.jpg": picture(1), "22.05.txt": b"lost before"})
    section = config({"kind": "webdataset", "path": str(tmp_path / "in")})
    with monkeypatch.context() as earlier:
        earlier.setattr(webdataset, "READING", 1)
        earlier.setattr(
            "pipeline.ingest.pairing.choose", lambda groups, *_: ("text", None) if groups[0] else (None, None)
        )
        earlier.setattr("tests.pipeline.images.STAGE", replace(stage.STAGE, version=1))
        before = ingest(tmp_path / "ws", section)
    monkeypatch.setattr("pipeline.ingest.inspect.inspect", lambda *_: pytest.fail("decoded again"))
    after = ingest(tmp_path / "ws", section)
    assert {row["source"]: row["alt_text"] for row in rows(after)} == {"a.jpg": "text", "22.05.jpg": "lost before"}
    assert [row["image_id"] for row in rows(after)] == [row["image_id"] for row in rows(before)]
    same = [part for part in after.parts if part.detail["shard"] == "same"]
    assert [part.digest for part in same] == [part.digest for part in before.parts if part.detail["shard"] == "same"]
    assert json.dumps(after.counts)  # plain data


def test_links_of_a_folder_of_tars_stay_inside_unless_asked(tmp_path: Path) -> None:
    make_tar(tmp_path / "far" / "b.tar", {"b.jpg": picture(1)})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.tar").symlink_to(tmp_path / "far" / "b.tar")
    source = {"kind": "webdataset", "path": str(tmp_path / "in")}
    with pytest.raises(
        InputError, match=r"no files that end in .tar \(1 link leads out of it: set ingest.source.foll"
    ):
        ingest(tmp_path / "ws", config(source))
    make_tar(tmp_path / "in" / "a.tar", {"a.jpg": picture(0)})
    manifest = ingest(tmp_path / "ws", config(source))
    assert manifest.counts["images"] == 1
    assert "links that lead out of the folder" in manifest.warnings[0]
    assert ingest(tmp_path / "ws", config({**source, "follow_links": True})).counts["images"] == 2
    named = {**source, "path": [str(tmp_path / "in" / "*.tar")]}  # who names a file means it
    assert ingest(tmp_path / "ws", config(named)).counts["images"] == 2


def test_a_tally_has_as_many_reasons_as_fit() -> None:
    tally = Tally()
    for number in range(300):
        tally.add(f"reason {number:03d}", f"file {number}", 1 + (number < 2))
    assert len(tally.counts()) == 101
    assert sum(tally.counts().values()) == 302
    assert str(tally).startswith("other reasons: 200, such as file 100; reason 000: 2, such as file 0; reason 001: 2")
    assert str(tally).endswith("; and 93 more reasons; the manifest has all")
