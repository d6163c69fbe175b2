"""Many links at once: img2dataset in processes of its own, each with a share of the links.

What became of a link is known as soon as it is decided, whatever the others do. A process that dies, or decides
nothing for longer than a link may take, is started again with what is left of its share.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

import pipeline
from pipeline.errors import InputError
from pipeline.ingest.config import UrlSource
from pipeline.ingest.download import MEGABYTE
from pipeline.ingest.download_process import links_file, notes_file
from pipeline.ingest.inspect import Reference
from pipeline.ingest.link_errors import OPT_OUT

SLACK_SECONDS = 120.0  # beyond the time of a link, until a process that decides none counts as dead
POLL_SECONDS = 0.05
STARTS = 3  # of a process that decides no link
OPT_OUT_OF_IMG2DATASET = "Use of image disallowed by X-Robots-Tag directive"


class Link(NamedTuple):
    """A link as it is opened, and in the form that is tried if that one fails."""

    url: str
    second: str | None = None


class Download:
    """img2dataset at work on distinct links, and what became of them by their positions."""

    def __init__(self, config: UrlSource, links: Sequence[Link], folder: Path, workers: int) -> None:
        self.config, self.links, self.folder = config, links, folder
        self.step = min(workers, len(links))
        self._results: dict[int, Reference | str] = {}
        self._last_of: dict[str, int] = {}  # files of pictures, with the last position in each
        self._shares: list[_Share] = []
        self._forgotten = 0

    def __enter__(self) -> Download:
        if importlib.util.find_spec("img2dataset") is None:
            raise InputError(
                "URL lists are downloaded by img2dataset, which is not installed: pip install img2dataset"
            )
        self._shares = [_Share(self, number) for number in range(self.step)]
        return self

    def __exit__(self, *_: object) -> None:
        for share in self._shares:
            share.stop()

    def result(self, position: int) -> Reference | str:
        """Where the picture of a link lies, or why there is none; waits until that is known."""
        share = self._shares[position % self.step]
        while position not in self._results:
            if not self.take(share.news()):
                share.keep_going()
                time.sleep(POLL_SECONDS)
        return self._results[position]

    def take(self, lines: Sequence[str]) -> bool:
        """Take in what a process noted. Says whether there was anything."""
        for line in lines:
            position, *result = json.loads(line)
            if len(result) == 1:
                self._results[position] = OPT_OUT if result[0] == OPT_OUT_OF_IMG2DATASET else result[0]
            else:
                self._results[position] = Reference(*result)
                self._last_of[result[0]] = max(position, self._last_of.get(result[0], 0))
        return bool(lines)

    def forget_before(self, position: int) -> None:
        """Delete what belongs to links before a position alone. The file that a process writes to stays."""
        for number in range(self._forgotten, position):
            self._results.pop(number, None)
        self._forgotten = position
        current = {share.file_in_use for share in self._shares}
        for file in [file for file, last in self._last_of.items() if last < position and file not in current]:
            Path(file).unlink(missing_ok=True)
            del self._last_of[file]


class _Share:
    """Every n-th link, and the process that downloads them: so all processes work near the front of the list."""

    def __init__(self, download: Download, number: int) -> None:
        self.download, self.number = download, number
        self.left = dict.fromkeys(range(number, len(download.links), download.step))
        self.file_in_use: str | None = None
        self._starts = self._generation = 0
        self._half = ""  # a line that is being written
        self._start()

    def news(self) -> list[str]:
        """Lines that were noted since the last call."""
        self._half += self._notes.read()
        *lines, self._half = self._half.split("\n")
        for line in lines:
            position, file, *_ = json.loads(line)
            self.left.pop(position)
            self.file_in_use = file if _ else self.file_in_use
        if lines:
            self._starts, self._since = 0, time.monotonic()
        return lines

    def keep_going(self) -> None:
        """Start the process again if it died or stalled. Raises `InputError` if that is of no use."""
        patience = self.download.config.link_seconds + SLACK_SECONDS
        code = self._process.poll()
        if code is None and time.monotonic() - self._since < patience:
            return
        if self.download.take(self.news()):
            return
        self.stop()
        why = f"no link was decided in {patience:.0f} s" if code is None else f"exit status {code}"
        if self._starts >= STARTS or (code or 0) > 0:
            raise InputError(f"img2dataset stopped ({why}): {self._last_words()}")
        self._start()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._notes.close()

    def _start(self) -> None:
        download, links = self.download, self.download.links
        self._starts, self._generation = self._starts + 1, self._generation + 1
        share = self._generation * download.step + self.number  # a number of its own for each process
        table = pa.table(
            {
                "url": [links[position].url for position in self.left],
                "second": pa.array([links[position].second for position in self.left], pa.string()),
                "position": list(self.left),
            }
        )
        with pa.ipc.new_file(str(links_file(download.folder, share)), table.schema) as writer:
            writer.write_table(table)
        notes_file(download.folder, share).touch()
        self._notes, self._half = open(notes_file(download.folder, share)), ""  # noqa: SIM115 (until `stop`)
        self._log = download.folder / f"log-{share}.txt"
        self._process, self._since = _run(self._log, _job(download, share)), time.monotonic()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _job(download: Download, share: int) -> str:
    config = download.config
    limits = {
        "seconds": config.link_seconds,
        "size": round(config.link_megabytes * MEGABYTE),
        "silence": config.timeout,
        "retries": config.retries,
    }
    return json.dumps(
        {
            "folder": str(download.folder),
            "share": share,
            "threads": config.threads,
            "limits": limits,
            "public_only": not config.allow_private_addresses,
        }
    )


def _run(log: Path, job: str) -> subprocess.Popen[bytes]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(log, "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", "from pipeline.ingest.download_process import main; main()", job],
            stdin=subprocess.PIPE,  # the process ends when this pipe does: ours dying takes it along
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
