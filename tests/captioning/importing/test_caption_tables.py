"""Tables of captions: somebody's Parquet or JSONL becomes captions of the store, and bad input one clear sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import world
from small_workspace import curate, newest

from captioning.browse.catalog import Catalog
from captioning.config import TableConfig
from captioning.importing.rows import open_rows
from captioning.stage import STAGE, external
from pipeline import schemas
from pipeline.commits import CommitLog
from pipeline.config import build
from pipeline.errors import ConfigError, HolismError, InputError
from pipeline.ingest import shard_images, shard_names
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import resolve
from pipeline.storage import Location
from pipeline.workspace import Workspace

Rows = list[dict[str, Any]]


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    return world.workspace(tmp_path, images=10, shard_images=4)


def images(made: Workspace) -> Rows:
    source = made.manifests("ingest")[0]
    return [row for shard in shard_names(source) for row in shard_images(source, shard).to_pylist()]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path | str, **settings: Any) -> dict[str, Any]:
    columns = {"image": "id", "text": "said", **settings.pop("columns", {})}
    return {"name": "mine", "path": str(path), "columns": columns, "perspective": "detail", **settings}


def take(made: Workspace, *tables: dict[str, Any], models: Sequence[str] = ()) -> Manifest:
    return world.caption(made, world.config(models=list(models), tables=list(tables)))


def said(manifest: Manifest, made: Workspace) -> list[tuple[str, str, str]]:
    return sorted((row["key"], row["perspective"], row["text"]) for row in world.rows(manifest, made))


def one_each(made: Workspace, column: str = "image_id") -> Rows:
    return [{"id": row[column], "said": f"Picture {row['key']} of a boat.", "more": 1} for row in images(made)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("match", ["image_id", "key", "source"])
def test_rows_become_captions(suffix: str, match: str, made: Workspace, tmp_path: Path) -> None:
    path = write(
        tmp_path / f"mine{suffix}", [*one_each(made, match), {"id": "elsewhere", "said": "Not here.", "more": 1}]
    )
    manifest = take(made, table(path, match=match, granularity="phrase", level="object"))
    assert said(manifest, made) == sorted(
        (row["key"], "detail", f"Picture {row['key']} of a boat.") for row in images(made)
    )
    rows = world.rows(manifest, made)
    assert {(row["model"], row["engine"], row["granularity"], row["level"], row["status"]) for row in rows} == {
        ("table:mine", "table", "phrase", "object", "ok")
    }
    assert len({row["caption_id"] for row in rows}) == 10
    assert manifest.counts["captions"] == manifest.counts["new_captions"] == 10
    assert manifest.counts["perspectives"] == {"detail": {"captions": 10, "errors": 0}}
    (warning,) = manifest.warnings
    assert warning == (
        "table 'mine': 1 caption matches no image of this workspace (of 11): column 'id' holds 'elsewhere'; "
        "all images have one"
    )


def test_lists_perspectives_and_gaps(made: Workspace, tmp_path: Path) -> None:
    ids = [row["image_id"] for row in images(made)]
    rows: Rows = [
        {"id": ids[0], "said": ["One.", "Two.", "One."], "kind": "style"},
        {"id": ids[1], "said": ["Three.", "  ", None], "kind": None},
        {"id": ids[2], "said": [], "kind": "style"},
        {"id": ids[3], "said": None, "kind": "style"},
    ]
    manifest = take(made, table(write(tmp_path / "m.parquet", rows), columns={"perspective": "kind"}))
    assert [row[1:] for row in said(manifest, made)] == [("style", "One."), ("style", "Two."), ("detail", "Three.")]
    assert manifest.warnings == ("table 'mine': 2 captions are empty and were left out",)
    assert {about["perspective"] for about in manifest.detail["cells"].values()} == {"style", "detail"}


def test_ids_and_texts_that_look_like_numbers_or_dates_stay_as_they_are(made: Workspace, tmp_path: Path) -> None:
    keys = [row["key"] for row in images(made)]
    assert keys[0].startswith("0")
    rows: Rows = [{"id": key, "said": "2020-01-01"} for key in keys]
    manifest = take(made, table(write(tmp_path / "m.jsonl", rows), match="key"))
    assert {text for _, _, text in said(manifest, made)} == {"2020-01-01"}
    assert len(said(manifest, made)) == 10


def test_numbers_of_parquet_are_refused_and_those_of_json_stay_as_they_stood(made: Workspace, tmp_path: Path) -> None:
    rows = one_each(made)
    with pytest.raises(InputError, match=r"mine.parquet: column 'more' holds int64, expected texts or lists of texts"):
        take(made, table(write(tmp_path / "mine.parquet", rows), columns={"text": "more"}))
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row).replace('"more": 1', '"more": 1.50') + "\n" for row in rows))
    assert {text for _, _, text in said(take(made, table(path, columns={"text": "more"})), made)} == {"1.50"}


def test_texts_that_come_late_and_change_their_type(made: Workspace, tmp_path: Path) -> None:
    ids = [row["source"] for row in images(made)]
    rows: Rows = [{"id": ids[0]}, {"id": ids[0], "said": None}] * 12_000
    rows += [{"id": ids[0], "said": "A boat."}, {"id": ids[1], "said": ["A cat.", "It sleeps."]}]
    manifest = take(made, table(write(tmp_path / "mine.jsonl", rows), match="source"))
    assert [text for _, _, text in said(manifest, made)] == ["A boat.", "A cat.", "It sleeps."]
    assert manifest.warnings == ("table 'mine': 24,000 captions are empty and were left out",)


def test_a_tsv_without_header_by_numbers(made: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    lines = [f'"Boat number {n}\t{row["source"]}' for n, row in enumerate(images(made))]
    path.write_text("\n".join(lines))
    manifest = take(made, table(path, match="source", columns={"image": 1, "text": 0}))
    assert [text for _, _, text in said(manifest, made)] == [f'"Boat number {n}' for n in range(10)]
    path.write_text("\n".join(["caption\tfile", *lines]))
    titled = take(made, table(path, match="source", columns={"image": 1, "text": 0}, header=True))
    assert said(titled, made) == said(manifest, made)
    assert not titled.warnings
    with pytest.raises(InputError, match=r"has no column 2 \(columns.image\); it has columns 0 to 1"):
        take(made, table(path, match="source", columns={"image": 2, "text": 0}))


def test_names_match_in_every_spelling_and_what_was_mended_is_told(tmp_path: Path) -> None:
    world.pictures(tmp_path / "set [v1]" / "pictures", 2)
    folder = tmp_path / "set [v1]" / "pictures"
    (folder / "sub").mkdir()
    (folder / "000.png").rename(folder / "sub" / "cafe\u0301.png")
    made = Workspace(str(tmp_path / "[ws]"))
    world.ingest(made, folder, 4)
    path = tmp_path / "set [v1]" / "mine.csv"
    path.write_bytes("id,said\n.\\sub\\caf\u00e9.png,A boat.\n001.png,".encode() + b"a caf\xe9\nx.png,Else.\n")
    manifest = take(made, table(tmp_path / "set [v1]" / "*.csv", match="source"))
    assert [text for _, _, text in said(manifest, made)] == ["A boat."]
    lost, fault = manifest.warnings
    assert lost == (
        "table 'mine': 1 caption matches no image of this workspace (of 2): column 'id' holds 'x.png'; "
        "the images without one have '001.png'"
    )
    assert fault == (
        "table 'mine': texts of column 'said': neither UTF-8 nor UTF-16 with a mark: 1 time, first in mine.csv line "
        "3; if they are Windows-1252, set caption.tables.encoding: windows-1252"
    )
    told = take(made, table(path, match="source", encoding="windows-1252"))
    assert [text for _, _, text in said(told, made)] == ["a café", "A boat."]


def test_beside_a_model_and_through_curation(made: Workspace, tmp_path: Path) -> None:
    alone = world.caption(made, world.config())
    path = write(tmp_path / "mine.parquet", one_each(made))
    both = world.caption(made, world.config(tables=[table(path)]))
    assert both.counts["captions"] == alone.counts["captions"] + 10
    assert both.counts["new_captions"] == 10
    assert {about["model"] for about in both.detail["cells"].values()} == {"table:mine", "fake:demo_vlm"}
    curated = curate(made)
    assert curated.counts["captions"] == both.counts["captions"]
    bundles = [
        row
        for part in curated.select("bundles/")
        for row in schemas.read(curated.location(part), schemas.BUNDLES).to_pylist()
    ]
    assert any(caption["text"].endswith("of a boat.") for row in bundles for caption in row["captions"])
    shown = Catalog(made, lambda: newest(made)).current()
    assert shown.rows("SELECT engine, count(*) AS n FROM captions WHERE model = 'table:mine' GROUP BY ALL") == [
        {"engine": "table", "n": 10}
    ]


def test_nothing_new_is_not_read_again(made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mine.parquet", one_each(made))
    first = take(made, table(path))
    moved = path.rename(tmp_path / "moved.parquet")
    monkeypatch.setattr("captioning.importing.tables.open_rows", lambda *_: pytest.fail("the table was read again"))
    moved.rename(path)
    again = take(made, table(tmp_path / "*.parquet"))
    assert again.parts == first.parts
    assert again.counts["new_captions"] == 0
    assert again.detail == first.detail
    assert again.warnings == first.warnings


def test_an_edited_table_replaces_its_rows_and_keeps_identities(made: Workspace, tmp_path: Path) -> None:
    rows = one_each(made)
    path = write(tmp_path / "mine.jsonl", rows)
    first = take(made, table(path))
    before = {(row["key"], row["text"]): row["caption_id"] for row in world.rows(first, made)}
    rows[3]["said"] = "Something else."
    del rows[7]
    write(path, rows)
    second = take(made, table(path))
    after = {(row["key"], row["text"]): row["caption_id"] for row in world.rows(second, made)}
    assert len(after) == 9
    assert {key: before[key] for key in before.keys() & after.keys()} == {
        key: after[key] for key in before.keys() & after.keys()
    }
    assert {text for _, text in after.keys() - before.keys()} == {"Something else."}
    assert said(first, made) == sorted((key, "detail", text) for key, text in before)  # the old manifest still holds


def test_a_kill_between_shards_loses_nothing(made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, commit, calls = write(tmp_path / "mine.parquet", one_each(made)), CommitLog.commit, []

    def dies(self: CommitLog, *args: Any, **settings: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return commit(self, *args, **settings)

    monkeypatch.setattr(CommitLog, "commit", dies)
    with pytest.raises(KeyboardInterrupt):
        take(made, table(path))
    monkeypatch.setattr(CommitLog, "commit", commit)
    manifest = take(made, table(path))
    assert len(said(manifest, made)) == 10
    assert manifest.counts["new_captions"] == 6  # the first shard's four were there


def test_new_images_take_their_captions_and_old_ones_stay(made: Workspace, tmp_path: Path) -> None:
    rows: Rows = [
        {"id": name, "said": f"This is {name}."} for name in (*(f"{n:03}.png" for n in range(10)), "new.png")
    ]
    mine = table(write(tmp_path / "mine.jsonl", rows), match="source")
    first = take(made, mine)
    assert len(said(first, made)) == 10
    assert first.warnings[0].startswith("table 'mine': 1 caption matches no image of this workspace (of 11): column")
    world.pictures(tmp_path / "more", 11)
    (tmp_path / "more" / "010.png").rename(tmp_path / "pictures" / "new.png")
    world.ingest(made, tmp_path / "pictures", 4)
    second = take(made, mine)
    assert [row for row in said(second, made) if row[2] != "This is new.png."] == said(first, made)
    assert len(said(second, made)) == 11
    assert {part.name for part in first.parts} < {part.name for part in second.parts}
    assert second.counts["new_captions"] == 1
    assert second.warnings == ()


def test_tables_on_any_file_system(made: Workspace) -> None:
    memory = fsspec.filesystem("memory")
    for number, row in enumerate(one_each(made)):
        memory.pipe(f"/tables/{number}.jsonl", json.dumps(row).encode() + b"\n")
    assert len(said(take(made, table("memory://tables/*.jsonl")), made)) == 10
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(one_each(made)), sink)
    memory.pipe("/tables/deep [1]/a.parquet", sink.getvalue())
    memory.pipe("/tables/deep [1]/_SUCCESS", b"")
    assert len(said(take(made, table("memory://tables/deep [1]", format="parquet")), made)) == 10


BAD: list[tuple[str, dict[str, Any], str]] = [
    (
        "column",
        {"columns": {"image": "picture"}},
        r"has no column 'picture' \(columns.image\); it has id, said, more, about",
    ),
    ("column", {"columns": {"perspective": "kind"}}, r"has no column 'kind' \(columns.perspective\)"),
    ("objects", {"columns": {"text": "about"}}, "column 'about' holds .*, expected texts or lists of texts"),
    (
        "match",
        {"match": "url"},
        "none of its 10 captions matches an image by url: column 'id' holds '.*' and '.*', the ",
    ),
    ("match", {"match": "key"}, "by key: .*, the images have '000000_000000' and '000000_000001'; set match to"),
    ("granularity", {"columns": {"granularity": "id"}}, "granularity is '.*', expected one of word, phrase"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(("name", "settings", "message"), BAD, ids=[f"{row[0]}-{n}" for n, row in enumerate(BAD)])
def test_bad_tables_end_in_one_sentence(
    name: str, settings: dict[str, Any], message: str, suffix: str, made: Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path / f"mine{suffix}", [{**row, "about": {"en": "A boat."}} for row in one_each(made)])
    with pytest.raises(InputError, match=message) as error:
        take(made, table(path, **settings))
    assert "\n" not in str(error.value)
    assert not made.manifests("caption")


@pytest.mark.parametrize(("name", "content"), [("torn.parquet", b"PAR1 no"), ("torn.jsonl", b'{"id": "a"}\n{"id": ')])
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, made: Workspace, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"table 'mine' cannot be read as .*{name}") as error:
        take(made, table(tmp_path / name))
    assert "\n" not in str(error.value)


def test_no_file_is_found_before_anything_runs(made: Workspace, tmp_path: Path) -> None:
    settings = world.config(models=[], tables=[table(tmp_path / "absent.parquet")])
    with pytest.raises(InputError, match="no file is at"):
        external(settings)
    source = build(IngestConfig, made.manifests("ingest")[0].config)
    resolution = resolve([INGEST, STAGE], {"ingest": source, "caption": settings}, made)["caption"]
    assert resolution.problem is not None


def test_a_key_that_several_images_bear_needs_the_shard(made: Workspace, tmp_path: Path) -> None:
    everyone = images(made)
    parts = tmp_path / "images.parquet"
    rows = [{**row, "key": "same" if number in (0, 9) else row["key"]} for number, row in enumerate(everyone)]
    pq.write_table(schemas.table(schemas.IMAGES, rows), parts)
    said = [
        {"id": "same", "said": "A boat.", "tar": everyone[0]["shard"]},
        {"id": rows[1]["key"], "said": "b", "tar": None},
    ]
    path = Location.of(write(tmp_path / "mine.parquet", said))
    with (
        open_rows(build(TableConfig, table(path.uri, match="key")), [path], [Location.of(parts)]) as captions,
        pytest.raises(InputError, match="several images have the key 'same', in different shards"),
    ):
        captions.check()
    config = build(TableConfig, table(path.uri, match="key", columns={"shard": "tar"}))
    with open_rows(config, [path], [Location.of(parts)]) as captions:
        captions.check()
        assert sorted((row["image_id"], row["text"]) for row in captions.matched()) == sorted(
            [(everyone[0]["image_id"], "A boat."), (everyone[1]["image_id"], "b")]
        )
    write(tmp_path / "mine.parquet", [said[0], {**said[0], "tar": None}])
    with (
        open_rows(config, [path], [Location.of(parts)]) as captions,
        pytest.raises(InputError, match="several images have the key 'same', in different shards"),
    ):
        captions.check()  # one of the captions does not tell the shard


def test_a_caption_of_another_shard_than_its_image_is_not_lost_in_silence(made: Workspace, tmp_path: Path) -> None:
    everyone = images(made)
    rows = [{"id": image["key"], "said": "A boat.", "tar": image["shard"]} for image in everyone]
    rows[0]["tar"] = "elsewhere"
    rows[1]["tar"] = None
    path = write(tmp_path / "mine.parquet", rows)
    manifest = take(made, table(path, match="key", columns={"shard": "tar"}))
    assert {row["key"] for row in world.rows(manifest, made)} == {row["id"] for row in rows[1:]}
    (warning,) = manifest.warnings
    assert warning == (
        "table 'mine': 1 caption matches no image of this workspace (of 10): they name another shard than that of "
        "their image, or no image"
    )
    write(path, [{**row, "tar": "elsewhere"} for row in rows])
    with pytest.raises(InputError, match="column 'tar' holds 'elsewhere', the shards are"):
        take(made, table(path, match="key", columns={"shard": "tar"}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "models is empty and there are no tables"),
        ({"tables": [table("x.txt")]}, "format is missing"),
        ({"tables": [{**table("x.parquet"), "perspective": None}]}, "perspective is missing"),
        ({"tables": [table("x.parquet"), table("y.parquet")]}, "two tables have the same name"),
        ({"tables": [table("x.parquet", match="name")]}, "match"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world.config(**settings)


def test_the_plan_tells_of_tables(made: Workspace, tmp_path: Path) -> None:
    settings = world.config(models=[], tables=[table(write(tmp_path / "mine.parquet", one_each(made)))])
    inputs = {"ingest": made.manifests("ingest")[0]}
    assert STAGE.preview(settings, inputs, made) == ["table:mine: captions of 3 shards to import"]
    world.caption(made, settings)
    assert STAGE.preview(settings, inputs, made) == ["table:mine: nothing is missing"]


def test_a_perspective_column_of_many_values_is_a_mistake(made: Workspace, tmp_path: Path) -> None:
    ids = [row["image_id"] for row in images(made)]
    rows: Rows = [{"id": ids[0], "said": f"Text {n}.", "kind": f"kind {n}"} for n in range(1001)]
    with pytest.raises(HolismError, match="column 'kind' has more than 1,000 different perspectives"):
        take(made, table(write(tmp_path / "m.parquet", rows), columns={"perspective": "kind"}))
