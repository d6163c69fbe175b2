"""A list of links, downloaded by img2dataset in processes of its own.

img2dataset writes chunks of tars to a scratch folder; they are packed into shards like the files of a folder,
in the order of the list, so a shard does not depend on which server answered first. The original bytes are
kept: all decoding and resizing is done in one place, for every kind of source.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import pipeline
from pipeline.errors import InputError
from pipeline.ingest.config import UrlSource
from pipeline.ingest.inspect import Reference
from pipeline.ingest.source import Described, Identity, Item
from pipeline.ingest.tables import Column, find_tables, read_table, told
from pipeline.ingest.tally import Tally
from pipeline.ingest.tars import scan
from pipeline.storage import Location

CHUNK = 500  # links of one img2dataset shard: a chunk's slowest server holds up only this many
SLACK_SECONDS = 120.0  # beyond the time that a chunk takes if every server is silent
POLL_SECONDS = 0.1
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
                f"{self.config.path}: {more:,} links have more than one caption in their row, and the first that is "
                "not empty is the alt text; name the table in caption.tables to have them all"
            )
        return items

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A link with another caption is another item."""
        return (row["source"], row["alt_text"])

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """What was downloaded is kept: links rot, and asking again is what `--retry-failed` is for."""
        return True

    def describe(self, item: Item) -> Described:
        """Alt text and URL."""
        return Described(item.alt_text, item.name)

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        """Download everything in the background, and yield each batch as soon as its last link is decided."""
        links = [item.name for batch in batches for item in batch]
        if not links:
            yield from ([] for _ in batches)
            return
        with _scratch(self.store) as folder, _Download(self.config, links, folder, self.workers) as download:
            start = 0
            for batch in batches:
                yield [download.result(position) for position in range(start, start + len(batch))]
                start += len(batch)
                download.forget_before(start)


class _Download:
    """img2dataset at work on a list of links, and its results by position in that list.

    Worker w has chunks w, w + workers, ... in this order. One that stays silent for longer than its chunk can
    take is replaced, and goes on with its next chunk.
    """

    def __init__(self, config: UrlSource, links: Sequence[str], folder: Path, workers: int) -> None:
        self.config, self.links, self.folder = config, links, folder
        self.chunk = min(CHUNK, max(2, math.ceil(len(links) / workers)))  # img2dataset's keys need two or more
        self.workers = min(workers, math.ceil(len(links) / self.chunk))
        silent = config.timeout * (config.retries + 1) * math.ceil(self.chunk / config.threads)
        self.patience = silent + SLACK_SECONDS
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._results: dict[int, list[Reference | str]] = {}
        self._forgotten = 0

    def __enter__(self) -> _Download:
        if importlib.util.find_spec("img2dataset") is None:
            raise InputError(
                "URL lists are downloaded by img2dataset, which is not installed: pip install img2dataset"
            )
        pq.write_table(pa.table({"url": self.links}), self.folder / "links.parquet")
        for worker in range(self.workers):
            self._start(worker, first=worker)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in list(self._processes):
            self._stop(worker)

    def result(self, position: int) -> Reference | str:
        """Where the image of a link lies, or why there is none; waits until that is known."""
        chunk, row = divmod(position, self.chunk)
        if chunk not in self._results:
            self._results[chunk] = self._wait_for(chunk)
        return self._results[chunk][row]

    def forget_before(self, position: int) -> None:
        """Delete the tars of chunks that lie wholly before a position."""
        while (self._forgotten + 1) * self.chunk <= position:
            self._results.pop(self._forgotten, None)
            (self.folder / f"{self._forgotten:05d}.tar").unlink(missing_ok=True)
            self._forgotten += 1

    def _start(self, worker: int, first: int) -> None:
        job = {
            "folder": str(self.folder),
            "chunks": list(range(first, math.ceil(len(self.links) / self.chunk), self.workers)),
            "chunk": self.chunk,
            "threads": self.config.threads,
            "timeout": self.config.timeout,
            "retries": self.config.retries,
            "public_only": not self.config.allow_private_addresses,
            "ready": str(self._ready(worker)),
        }
        self._ready(worker).unlink(missing_ok=True)
        root = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with open(self.folder / f"log-{worker}.txt", "ab") as log:
            self._processes[worker] = subprocess.Popen(
                [sys.executable, "-c", "from pipeline.ingest.download import main; main()", json.dumps(job)],
                stdin=subprocess.PIPE,  # the process ends when this pipe does: ours dying takes it along
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to handle
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            )

    def _stop(self, worker: int) -> None:
        process = self._processes.pop(worker)
        process.kill()
        process.communicate()

    def _ready(self, worker: int) -> Path:
        return self.folder / f"ready-{worker}"

    def _stats(self, chunk: int) -> Path:
        """img2dataset writes this after the chunk's tar and table are closed."""
        return self.folder / f"{chunk:05d}_stats.json"

    def _wait_for(self, chunk: int) -> list[Reference | str]:
        worker = chunk % self.workers
        while not self._stats(chunk).exists():
            code = self._processes[worker].poll()
            if self._stats(chunk).exists():
                break
            if code:
                raise InputError(f"img2dataset stopped (exit status {code}): {self._last_words(worker)}")
            if code == 0:
                return self._no_answer(chunk, f"img2dataset gave this link up: {self._last_words(worker)}")
            if self._silence(chunk) > self.patience:
                self._stop(worker)
                self._start(worker, first=chunk + self.workers)
                return self._no_answer(chunk, f"no answer within {self.patience:.0f} s (the download stalled)")
            time.sleep(POLL_SECONDS)
        return self._collect(chunk)

    def _silence(self, chunk: int) -> float:
        """Seconds since work on a chunk began: since its worker was ready, or done with the chunk before."""
        signs = [self._ready(chunk % self.workers), self._stats(chunk - self.workers)]
        return min((time.time() - sign.stat().st_mtime for sign in signs if sign.exists()), default=0.0)

    def _collect(self, chunk: int) -> list[Reference | str]:
        """img2dataset numbers its rows: the digits of the chunk, then those of the row."""
        results = self._no_answer(chunk, "img2dataset lost this link")
        tar, digits = self.folder / f"{chunk:05d}.tar", math.ceil(math.log10(self.chunk))
        table = pq.read_table(tar.with_suffix(".parquet"), columns=["key", "status", "error_message"])
        for key, status, message in zip(*(column.to_pylist() for column in table.columns), strict=True):
            results[int(key) % 10**digits] = str(message or status)
        for sample in scan(Location.of(tar)).samples:
            results[int(sample.key) % 10**digits] = Reference(str(tar), sample.offset, sample.size)
        return results

    def _no_answer(self, chunk: int, reason: str) -> list[Reference | str]:
        start = chunk * self.chunk
        return [reason] * len(self.links[start : start + self.chunk])

    def _last_words(self, worker: int) -> str:
        lines = (self.folder / f"log-{worker}.txt").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


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
