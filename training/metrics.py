"""metrics.jsonl: one line a step, in step with the checkpoints.

A run that is killed and goes on from its last checkpoint repeats the steps after it; their old lines are removed
first, so the file reads as if nothing had happened.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.storage import Location


class MetricsLog:
    """Appends locally; on object stores, which know no append, the whole file is written anew at each save."""

    def __init__(self, file: Location, start: int) -> None:
        """Keeps the lines of the steps before `start`."""
        self.file = file
        self._lines = [line for line in _lines(file) if _step(line) < start]
        self._write_all()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = [json.dumps(row) for row in rows]
        self._lines += lines
        if self.file.is_local:
            self.file.append("".join(f"{line}\n" for line in lines))

    def save(self) -> None:
        if not self.file.is_local:
            self._write_all()

    def to_bytes(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()

    def last(self, count: int) -> list[dict[str, Any]]:
        """The last rows, at most `count`."""
        return [json.loads(line) for line in self._lines[-count:]]

    def _write_all(self) -> None:
        self.file.write(self.to_bytes())


def _lines(file: Location) -> list[str]:
    return file.read().decode().splitlines() if file.exists() else []


def _step(line: str) -> float:
    """The step of a line; a line cut off by a kill belongs to no step that is kept."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
