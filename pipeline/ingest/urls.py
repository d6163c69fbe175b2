"""A list of links, downloaded by img2dataset in processes of its own.

img2dataset writes pictures to a scratch folder (`downloads.py`); they are packed into shards like the files of a
folder, in the order of the list, so a shard does not depend on which server answered first. The original bytes are
kept: all decoding and resizing is done in one place, for every kind of source.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.ingest.config import UrlSource
from pipeline.ingest.downloads import Download, Link
from pipeline.ingest.inspect import Reference
from pipeline.ingest.links import NoLinkError, as_it_stands, opened
from pipeline.ingest.source import Described, Identity, Item
from pipeline.ingest.tables import Column, find_tables, read_table, told
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.summary import counted

SCRATCH = "_download"
LIST = "the URL list"


def list_digest(config: UrlSource) -> str:
    """Digest of the list's content; raises `InputError` if it is missing."""
    sha = hashlib.sha256()
    for location in find_tables(config.path, LIST):
        with location.open() as handle:
            while block := handle.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


class UrlList:
    """The links of a table, or of several, in their order. The same link may occur more than once."""

    lasting = True

    def __init__(self, config: UrlSource, store: Location, workers: int) -> None:
        self.config, self.store, self.workers = config, store, workers
        self.warnings: list[str] = []
        self.left_out, self.mended = Tally(), Tally()

    def items(self) -> list[Item]:
        """The links; raises `InputError` if the table is missing, empty, or lacks a column."""
        columns: dict[str, Column] = {"url_column": self.config.url_column}
        if self.config.caption_column is not None:
            columns["caption_column"] = self.config.caption_column
        table = read_table(
            find_tables(self.config.path, LIST),
            columns,
            texts=["caption_column"],
            encoding=self.config.encoding,
            header=self.config.header,
        )
        items, more = [], 0
        for url, *rest in table:
            texts = rest[0] if rest else ()
            text = texts[0] if texts else None
            items.append(Item(url or "", "", (url or "", text), text))
            more += len(texts) > 1
        self.warnings = told(table, self.config.path, "ingest.source")
        if not items:
            empty = f"{LIST} {self.config.path} is empty; expected one link a row"
            raise InputError("; ".join([empty, *self.warnings]))
        if more:
            self.warnings.append(
                f"{self.config.path}: {counted(more, 'row has', 'rows have')} more than one caption, and the first "
                "that is not empty is the alt text; name the table in caption.tables to have them all"
            )
        return items

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A link with another caption is another item."""
        return (row["source"], row["alt_text"])

    def picture(self, name: str) -> str | None:
        """The link as it is opened: however it is written, what is there is the same."""
        try:
            return opened(name)
        except NoLinkError:
            return None

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """What was downloaded is kept: links rot, and asking again is what `--retry-failed` is for."""
        return True

    def describe(self, item: Item) -> Described:
        """Alt text and URL."""
        return Described(item.alt_text, item.name)

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        """Download everything in the background, and yield each batch as soon as its last link is decided."""
        decided = [[_link(item.name) for item in batch] for batch in batches]
        links = [link for batch in decided for link in batch if isinstance(link, Link)]
        if not links:
            yield from decided  # type: ignore[misc]  # all of them reasons
            return
        with _scratch(self.store) as folder, Download(self.config, links, folder, self.workers) as download:
            start = 0
            for batch in decided:
                positions = itertools.count(start)
                yield [download.result(next(positions)) if isinstance(link, Link) else link for link in batch]
                start = next(positions)
                download.forget_before(start)


def _link(written: str) -> Link | str:
    """A link in the forms that are tried, or why there is none."""
    try:
        return Link(opened(written), as_it_stands(written))
    except NoLinkError as error:
        return str(error)


@contextlib.contextmanager
def _scratch(store: Location) -> Iterator[Path]:
    """A local folder for tars on their way: inside the store if that is local, since it has the room."""
    if not store.is_local:
        with tempfile.TemporaryDirectory(prefix="holism-download-") as folder:
            yield Path(folder)
        return
    folder_in_store = Path((store / SCRATCH).uri)
    shutil.rmtree(folder_in_store, ignore_errors=True)  # left by a run that was killed
    folder_in_store.mkdir(parents=True)
    try:
        yield folder_in_store
    finally:
        shutil.rmtree(folder_in_store, ignore_errors=True)
