"""Reading tables that people bring: csv, tsv, jsonl or parquet."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.storage import Location

KINDS = (".parquet", ".csv", ".tsv", ".jsonl")


def read_table(location: Location, columns: Mapping[str, str]) -> pa.Table:
    """The named columns of a table. `columns` maps the setting that names a column to the column's name.

    Raises `InputError` if the file is missing, is no such table, or lacks a column (those it has are named).
    """
    if not location.exists() or location.is_dir():
        found = "a folder" if location.exists() else "not there"
        raise InputError(f"the table {location} is {found}; expected a file that ends in {' '.join(KINDS)}")
    kind = next((kind for kind in KINDS if location.name.endswith(kind)), None)
    if kind is None:
        raise InputError(f"the table {location} is of no known kind; expected a name that ends in {' '.join(KINDS)}")
    try:
        table = _parse(location, kind)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{location} cannot be read as {kind[1:]}: {' '.join(str(error).split())}") from error
    for setting, name in columns.items():
        if name not in table.column_names:
            raise InputError(
                f"{location} has no column {name!r} ({setting}); it has {', '.join(table.column_names) or 'none'}"
            )
    return table.select(list(dict.fromkeys(columns.values())))


def _parse(location: Location, kind: str) -> pa.Table:
    with location.open_arrow() as handle:
        if kind == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(handle)
        if kind == ".jsonl":
            from pyarrow import json

            return json.read_json(handle)
        from pyarrow import csv

        options = csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True)
        return csv.read_csv(handle, parse_options=options)
