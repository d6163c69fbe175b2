"""Reads a table of imported captions and matches it with the images, in DuckDB, which spills to disk.

What a user can have wrong is found before anything is written, and said in one sentence: a file that cannot be read, a
column that is not there, ids that match nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pyarrow as pa

from captioning.config import Granularity, Level, TableConfig
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.ingest.tables import Table, read_table, told
from pipeline.storage import Location
from pipeline.texts import name_key

MEMORY = "1GB"  # of DuckDB; more goes to disk
KINDS = 1000  # of captions in one table; a column of more perspectives than that holds something else
BATCH = 16_384
KIND = ("perspective", "granularity", "level")
SAID = ("image", "shard", *KIND, "text")
PATHS = ("key", "source")  # match values that are names of files, which may be written in several ways
NOTHING = "nothing"


@dataclass(frozen=True)
class Counts:
    """How many captions a table has, how many more are empty, and how many are about images of this workspace."""

    rows: int
    empty: int
    matched: int
    unmatched: str  # examples of captions and images that did not find each other
    faults: tuple[str, ...]  # what was left out or mended, a sentence for each reason


class TableRows:
    """The captions of one table beside the images of a workspace, in a temporary database."""

    def __init__(self, connection: Any, config: TableConfig, files: Sequence[Location]) -> None:
        self.config, self._connection = config, connection
        self._name = f"caption.tables: table {config.name!r}"
        self._take(files)

    def counts(self) -> Counts:
        """Counts over the whole table. Raises `InputError` if it has no caption of any image."""
        rows, near, matched = self._query(
            "SELECT count(*), count(*) FILTER (image IN (SELECT value FROM images)), "
            "count(*) FILTER ((image, coalesce(shard, '')) IN (SELECT value, shard FROM images) "
            "OR (shard IS NULL AND image IN (SELECT value FROM images))) FROM said"
        )[0]
        columns = self.config.columns
        if not rows:
            raise InputError(
                f"{self._name}: column {columns.text!r} holds no caption ({self._empty:,} are empty)"
                + "".join(f"; {fault}" for fault in self._faults)
            )
        if not near:
            raise InputError(
                f"{self._name}: none of its {rows:,} captions matches an image by {self.config.match}: column "
                f"{columns.image!r} holds {self._examples('said', 'image')}, the images have "
                f"{self._examples('images', 'value')}; set match to what the column holds"
            )
        if not matched:
            raise InputError(
                f"{self._name}: none of its {rows:,} captions is in the shard of its image: column "
                f"{columns.shard!r} holds {self._examples('said', 'shard')}, the shards are "
                f"{self._examples('images', 'shard')}; name the column that holds them, or leave columns.shard out"
            )
        return Counts(rows, self._empty, matched, self._unmatched() if matched < rows else "", self._faults)

    def _unmatched(self) -> str:
        """Examples of captions whose image is not there, and of images that have no caption."""
        lost = self._examples("said", "image", "image NOT IN (SELECT value FROM images)")
        if lost == NOTHING:
            return "they name another shard than that of their image, or no image"
        left = self._examples("images", "value", "value NOT IN (SELECT image FROM said WHERE image IS NOT NULL)")
        others = "all images have one" if left == NOTHING else f"the images without one have {left}"
        return f"column {self.config.columns.image!r} holds {lost}; {others}"

    def check(self) -> None:
        """Raises `InputError` for captions of no kind, and for keys that several images share."""
        for name, allowed in (("granularity", get_args(Granularity)), ("level", get_args(Level))):
            wrong = self._query(f"SELECT DISTINCT {name} FROM said WHERE {name} NOT IN {allowed} ORDER BY 1 LIMIT 1")
            if wrong:
                raise InputError(f"{self._name}: {name} is {wrong[0][0]!r}, expected one of {', '.join(allowed)}")
        if self._query("SELECT 1 FROM said WHERE perspective IS NULL LIMIT 1"):
            raise InputError(
                f"{self._name}: some captions have no perspective; set perspective for those that lack one"
            )
        if self.config.match == "key":
            twice = self._query(
                "SELECT value FROM images WHERE value IN (SELECT image FROM said WHERE shard IS NULL) GROUP BY value "
                "HAVING count(DISTINCT image_id) > 1 ORDER BY 1 LIMIT 1"
            )
            if twice:
                raise InputError(
                    f"{self._name}: several images have the key {twice[0][0]!r}, in different shards; name the column "
                    "that holds the shard (columns.shard), or match by image_id"
                )

    def kinds(self) -> list[tuple[str, str, str]]:
        """The (perspective, granularity, level) that occur."""
        kinds = self._query(f"SELECT DISTINCT {', '.join(KIND)} FROM said ORDER BY ALL LIMIT {KINDS + 1}")
        if len(kinds) > KINDS:
            raise InputError(
                f"{self._name}: column {self.config.columns.perspective!r} has more than {KINDS:,} different "
                f"perspectives, such as {kinds[0][0]!r}; expected a few, such as detail or style"
            )
        return kinds

    def matched(self) -> Iterator[dict[str, Any]]:
        """Captions with their image, each once, sorted by shard, key and content."""
        reader = self._connection.sql(
            f"SELECT DISTINCT o.shard, o.key, o.image_id, {', '.join(f's.{name}' for name in KIND)}, s.text "
            "FROM said s JOIN images i ON i.value = s.image AND (s.shard IS NULL OR s.shard = i.shard) "
            "JOIN images o ON o.image_id = i.image_id "  # a picture with several keys has its captions under each
            "ORDER BY ALL"
        ).to_arrow_reader(BATCH)
        return (row for batch in reader for row in batch.to_pylist())

    def _take(self, files: Sequence[Location]) -> None:
        """Read the files once, into columns of known names; lists of texts become a row each."""
        asked = {f"columns.{name}": column for name, column in self.config.columns.model_dump().items()}
        asked = {setting: column for setting, column in asked.items() if column is not None}
        table = read_table(
            files,
            asked,
            texts=["columns.text"],
            encoding=self.config.encoding,
            header=self.config.header,
            kind=f".{self.config.kind}",
            about=self._name,
        )
        fixed = [self.config.perspective, self.config.granularity, self.config.level]
        given = [f"coalesce({name}, ?::VARCHAR) AS {name}" for name in KIND]
        self._connection.execute(f"CREATE TABLE said ({', '.join(f'{name} VARCHAR' for name in SAID)})")
        self._connection.execute("BEGIN")
        rows = _one_text_each(table, list(asked), as_key=self.config.match in PATHS)
        while batch := list(islice(rows, BATCH)):
            columns = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
            self._connection.register("batch", pa.table(columns, names=list(SAID)))
            filled = f"SELECT image, shard, {', '.join(given)}, text FROM batch"
            self._connection.execute(f"INSERT INTO said {filled}", fixed)
        self._connection.unregister("batch")
        self._connection.execute("COMMIT")
        self._empty, self._faults = table.blank, tuple(told(table, f"table {self.config.name!r}", "caption.tables"))

    def _examples(self, table: str, column: str, which: str = "true") -> str:
        where = f"{column} IS NOT NULL AND {which}"
        examples = self._query(f"SELECT DISTINCT {column} FROM {table} WHERE {where} ORDER BY 1 LIMIT 2")
        return " and ".join(repr(value) for (value,) in examples) or NOTHING

    def _query(self, sql: str) -> list[Any]:
        rows: list[Any] = self._connection.execute(sql).fetchall()
        return rows


@contextmanager
def open_rows(config: TableConfig, files: Sequence[Location], images: Sequence[Location]) -> Iterator[TableRows]:
    """The table beside the images; the database goes with the context."""
    import duckdb

    with TemporaryDirectory(prefix="holism-tables-") as folder, duckdb.connect(f"{folder}/rows.duckdb") as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET preserve_insertion_order = false")
        _load(connection, images, config.match)
        yield TableRows(connection, config, files)


def _load(connection: Any, images: Sequence[Location], match: str) -> None:
    """The images of a workspace, each with the value by which captions find it."""
    connection.execute("CREATE TABLE images (shard VARCHAR, key VARCHAR, image_id VARCHAR, value VARCHAR)")
    for part in images:
        rows = schemas.read(part, schemas.IMAGES, list({"shard", "key", "image_id", "status", match}))
        values = rows.column(match).to_pylist()
        if match in PATHS:
            values = [None if value is None else name_key(value) for value in values]
        connection.register("part", rows.append_column("value", pa.array(values, pa.string())))
        connection.execute(
            "INSERT INTO images SELECT shard::VARCHAR, key, image_id, value FROM part "
            "WHERE status::VARCHAR = 'ok' AND value IS NOT NULL"
        )
    connection.unregister("part")


def _one_text_each(table: Table, settings: Sequence[str], *, as_key: bool) -> Iterator[tuple[str | None, ...]]:
    """The captions of a table as rows of `SAID`."""
    places = {setting.removeprefix("columns."): number for number, setting in enumerate(settings)}
    others = [places.get(name) for name in SAID[1:-1]]
    for row in table:
        image = row[places["image"]]
        if image is not None and as_key:
            image = name_key(image)
        for text in row[places["text"]]:
            yield (image, *(None if place is None else row[place] for place in others), text)
