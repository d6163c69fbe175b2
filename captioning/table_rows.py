"""Reads somebody's table of captions and finds the images it speaks of: streamed by DuckDB, which spills to disk.

What a user can have wrong is found before anything is written, and said in one sentence: a file that cannot be read, a
column that is not there, ids that match nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, get_args

from captioning.config import Granularity, Level, TableConfig
from pipeline.errors import InputError
from pipeline.storage import Location, filesystem

MEMORY = "1GB"  # of DuckDB; more goes to disk
KINDS = 1000  # of captions in one table; a column of more perspectives than that holds something else
BATCH = 16_384
KIND = ("perspective", "granularity", "level")
GUESSED = ("DATE", "TIME", "TIMESTAMP", "UUID")  # what DuckDB takes a JSON text for that looks like it


@dataclass(frozen=True)
class Counts:
    """How many captions a table has, how many are empty, and how many are about images of this workspace."""

    rows: int
    empty: int
    matched: int


class TableRows:
    """The captions of one table beside the images of a workspace, in a temporary database."""

    def __init__(self, connection: Any, config: TableConfig, files: Sequence[Location]) -> None:
        self.config, self._connection = config, connection
        self._name = f"caption.tables: table {config.name!r}"
        self._take([file.uri for file in files])

    def counts(self) -> Counts:
        """Counts over the whole table. Raises `InputError` if it has no caption of any image."""
        rows, empty, near, matched = self._query(
            "SELECT count(*), count(*) FILTER (text IS NULL OR trim(text) = ''), "
            "count(*) FILTER (image IN (SELECT value FROM images)), "
            "count(*) FILTER ((image, coalesce(shard, '')) IN (SELECT value, shard FROM images) "
            "OR (shard IS NULL AND image IN (SELECT value FROM images))) FROM said"
        )[0]
        columns = self.config.columns
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
        return Counts(rows, empty, matched)

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
        found = self._query(f"SELECT DISTINCT {', '.join(KIND)} FROM said ORDER BY ALL LIMIT {KINDS + 1}")
        if len(found) > KINDS:
            raise InputError(
                f"{self._name}: column {self.config.columns.perspective!r} has more than {KINDS:,} different "
                f"perspectives, such as {found[0][0]!r}; expected a few, such as detail or style"
            )
        return found

    def matched(self) -> Iterator[dict[str, Any]]:
        """Captions with their image, each once, sorted by shard, key and content."""
        reader = self._connection.sql(
            f"SELECT DISTINCT o.shard, o.key, o.image_id, {', '.join(f's.{name}' for name in KIND)}, s.text "
            "FROM said s JOIN images i ON i.value = s.image AND (s.shard IS NULL OR s.shard = i.shard) "
            "JOIN images o ON o.image_id = i.image_id "  # a picture with several keys has its captions under each
            "WHERE s.text IS NOT NULL AND trim(s.text) <> '' ORDER BY ALL"
        ).to_arrow_reader(BATCH)
        return (row for batch in reader for row in batch.to_pylist())

    def _take(self, files: list[str]) -> None:
        """Read the files once, into columns of known names; lists of texts become a row each."""
        columns = self.config.columns
        found = self._columns(files)
        asked = {name: column for name, column in columns.model_dump().items() if column is not None}
        for name, column in asked.items():
            if column not in found:
                raise InputError(
                    f"{self._name}: {files[0]} has no column {column!r} (columns.{name}); it has {', '.join(found)}"
                )
        kind = found[columns.text]
        item = kind.removesuffix("[]")
        if item != "VARCHAR" and not (item in GUESSED and self.config.kind == "jsonl"):
            raise InputError(f"{self._name}: column {columns.text!r} holds {kind}, expected texts or lists of texts")
        types = {
            column: kind.replace(item, "VARCHAR") if column == columns.text else "VARCHAR" for column in asked.values()
        }
        text = f"unnest({_quoted(columns.text)})" if kind.endswith("[]") else _quoted(columns.text)
        fixed = [self.config.perspective, self.config.granularity, self.config.level]
        given = [f"coalesce({_column(asked.get(name))}, ?::VARCHAR) AS {name}" for name in KIND]
        self._query(
            f"CREATE TABLE said AS SELECT {_column(columns.image)} AS image, {_column(columns.shard)} AS shard, "
            f"{', '.join(given)}, {text} AS text FROM {self._source(types)}",
            [*fixed, files],
        )

    def _columns(self, files: list[str]) -> dict[str, str]:
        """Names and types of the table's columns, in the first place where it shows whether a file can be read."""
        return {name: kind for name, kind, *_ in self._query(f"DESCRIBE SELECT * FROM {self._source(None)}", [files])}

    def _source(self, types: dict[str, str] | None) -> str:
        if self.config.kind == "parquet":
            return "read_parquet(?, union_by_name = true)"
        # JSON's types are guessed; ids and texts that look like dates are still ids and texts.
        told = (
            "" if types is None else ", columns = {" + ", ".join(f"{_text(n)}: '{t}'" for n, t in types.items()) + "}"
        )
        return f"read_json(?, format = 'newline_delimited'{told or ', union_by_name = true'})"

    def _examples(self, table: str, column: str) -> str:
        found = self._query(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY 1 LIMIT 2")
        return " and ".join(repr(value) for (value,) in found) or "nothing"

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        import duckdb

        try:
            rows: list[Any] = self._connection.execute(sql, list(values)).fetchall()
        except duckdb.Error as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise InputError(f"{self._name} cannot be read as {self.config.kind}: {reason}") from error
        return rows


@contextmanager
def open_rows(config: TableConfig, files: Sequence[Location], images: Sequence[Location]) -> Iterator[TableRows]:
    """The table beside the images; the database goes with the context."""
    import duckdb

    with TemporaryDirectory(prefix="holism-tables-") as folder, duckdb.connect(f"{folder}/rows.duckdb") as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET preserve_insertion_order = false")
        for protocol in {file.protocol for file in (*files, *images) if not file.is_local}:
            connection.register_filesystem(filesystem(protocol))
        connection.execute(
            f"CREATE TABLE images AS SELECT shard::VARCHAR AS shard, key, image_id, {config.match} AS value "
            f"FROM read_parquet(?) WHERE status::VARCHAR = 'ok' AND {config.match} IS NOT NULL",
            [[part.uri for part in images]],
        )
        yield TableRows(connection, config, files)


def _column(name: str | None) -> str:
    return f"{_quoted(name)}::VARCHAR" if name is not None else "NULL::VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
