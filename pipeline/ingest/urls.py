"""A list of links, downloaded by img2dataset in a process of its own.

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
import signal
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
from pipeline.ingest.source import Identity, Item
from pipeline.ingest.tables import KINDS, read_table
from pipeline.ingest.tars import scan
from pipeline.storage import Location

CHUNK = 500  # links of one img2dataset shard: a chunk's slowest server holds up only this many
SLACK_SECONDS = 120.0  # beyond the time that a chunk takes if every server is silent
POLL_SECONDS = 0.1
SCRATCH = "_download"


def list_digest(config: UrlSource) -> str:
    """Digest of the list's content; raises `InputError` if it is missing."""
    location = Location.of(config.path)
    if not location.exists() or location.is_dir():
        raise InputError(f"the URL list {location} is not there; expected a {', '.join(KINDS)} table of links")
    sha = hashlib.sha256()
    with location.open() as handle:
        while block := handle.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


class UrlList:
    """The links of a table, in its order. The same link may occur more than once."""

    def __init__(self, config: UrlSource, store: Location, workers: int) -> None:
        self.config, self.store, self.workers = config, store, workers

    def items(self) -> list[Item]:
        """The links; raises `InputError` if the table is missing, empty, or lacks a column."""
        columns = {"url_column": self.config.url_column}
        if self.config.caption_column is not None:
            columns["caption_column"] = self.config.caption_column
        location = Location.of(self.config.path)
        table = read_table(location, columns)
        if not table.num_rows:
            raise InputError(f"the URL list {location} is empty; expected one link a row")
        urls = [_text(value) or "" for value in table.column(self.config.url_column).to_pylist()]
        texts: list[str | None] = [None] * len(urls)
        if self.config.caption_column is not None:
            texts = [_text(value) for value in table.column(self.config.caption_column).to_pylist()]
        return [Item(url, "", (url, text), text) for url, text in zip(urls, texts, strict=True)]

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A link with another caption is another item."""
        return (row["source"], row["alt_text"])

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """What was downloaded is kept: links rot, and asking again is what `--retry-failed` is for."""
        return True

    def describe(self, item: Item) -> tuple[str | None, str | None]:
        """Alt text and URL."""
        return item.alt_text, item.name

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
    """One run of img2dataset over a list of links, and its results by position in that list."""

    def __init__(self, config: UrlSource, links: Sequence[str], folder: Path, workers: int) -> None:
        self.links, self.folder = links, folder
        self.chunk = min(CHUNK, max(2, math.ceil(len(links) / workers)))  # img2dataset's keys need two or more
        silent = config.timeout * (config.retries + 1) * math.ceil(self.chunk / config.threads)
        self.patience = silent + SLACK_SECONDS
        self.config, self.workers = config, workers
        self._results: dict[int, list[Reference | str]] = {}
        self._forgotten = 0

    def __enter__(self) -> _Download:
        if importlib.util.find_spec("img2dataset") is None:
            raise InputError(
                "URL lists are downloaded by img2dataset, which is not installed: pip install img2dataset"
            )
        table = self.folder / "links.parquet"
        pq.write_table(pa.table({"url": self.links}), table)
        job = {
            "allow_private_addresses": self.config.allow_private_addresses,
            "url_list": str(table),
            "output_folder": str(self.folder / "tars"),
            "processes_count": self.workers,
            "thread_count": self.config.threads,
            "number_sample_per_shard": self.chunk,
            "timeout": self.config.timeout,
            "retries": self.config.retries,
        }
        quiet = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        root = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with open(self.folder / "log.txt", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from pipeline.ingest.download import main; main()", json.dumps(job)],
                stdin=subprocess.PIPE,  # the process ends when this pipe does: ours dying takes it along
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **quiet, "PYTHONPATH": paths},
            )
        self._heard = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

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
            (self.folder / "tars" / f"{self._forgotten:05d}.tar").unlink(missing_ok=True)
            self._forgotten += 1

    def _wait_for(self, chunk: int) -> list[Reference | str]:
        stem = self.folder / "tars" / f"{chunk:05d}"
        finished = stem.with_name(f"{stem.name}_stats.json")  # written after the chunk's tar and table are closed
        while not finished.exists():
            code = self._process.poll()
            if code is not None and not finished.exists():
                if code:
                    raise InputError(f"img2dataset stopped (exit status {code}): {self._last_words()}")
                return self._no_answer(chunk, "img2dataset gave this link up without a reason")
            waited = time.monotonic() - max(self._heard, self._last_finished())
            if waited > self.patience:
                return self._no_answer(chunk, f"no answer within {self.patience:.0f} s (the download stalled)")
            time.sleep(POLL_SECONDS)
        self._heard = time.monotonic()
        return self._collect(chunk, stem)

    def _collect(self, chunk: int, stem: Path) -> list[Reference | str]:
        """img2dataset numbers its rows: the digits of the chunk, then those of the row."""
        results = self._no_answer(chunk, "img2dataset lost this link")
        digits = math.ceil(math.log10(self.chunk))
        table = pq.read_table(f"{stem}.parquet", columns=["key", "status", "error_message"])
        for key, status, message in zip(*(column.to_pylist() for column in table.columns), strict=True):
            results[int(key) % 10**digits] = f"{message or status}"
        for sample in scan(Location.of(f"{stem}.tar")).samples:
            results[int(sample.key) % 10**digits] = Reference(f"{stem}.tar", sample.offset, sample.size)
        return results

    def _no_answer(self, chunk: int, reason: str) -> list[Reference | str]:
        start = chunk * self.chunk
        return [reason] * len(self.links[start : start + self.chunk])

    def _last_finished(self) -> float:
        """When a chunk was last finished, on the monotonic clock."""
        ages = [time.time() - path.stat().st_mtime for path in (self.folder / "tars").glob("*_stats.json")]
        return time.monotonic() - min(ages) if ages else 0.0

    def _last_words(self) -> str:
        lines = (self.folder / "log.txt").read_text(errors="replace").split("\n")
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


def _text(value: Any) -> str | None:
    return (str(value).strip() or None) if value is not None else None
