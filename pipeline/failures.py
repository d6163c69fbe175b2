"""What the last run of a stage failed with, kept in the workspace until the stage succeeds.

WS/failures/STAGE.json. A stop by hand is no failure, and neither is a stage that could not begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pipeline import faults, stops
from pipeline.errors import HolismError, MissingInputError
from pipeline.presentable import presentable
from pipeline.storage import Location
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Failure:
    """When a run of a stage failed, with which sentence, and the result it was to make."""

    at: str
    error: str
    fingerprint: str | None


def last(workspace: Workspace, stage: str) -> Failure | None:
    """The failure of a stage's last run; None if that went well, or if its record cannot be read."""
    place = _place(workspace, stage)
    if not place.exists():
        return None
    try:
        return Failure(**json.loads(place.read()))
    except (ValueError, TypeError):
        return None


@contextmanager
def remembered(workspace: Workspace, stage: str, fingerprint: str | None) -> Iterator[None]:
    """Keep a record if what is done in here fails, and drop an earlier one if it does not."""
    try:
        yield
    except MissingInputError:
        raise
    except Exception as error:
        if not stops.under_way():
            at = datetime.now(UTC).isoformat("T", "seconds")
            note = Failure(at, presentable(_sentence(error)), fingerprint)
            with suppress(HolismError, OSError):  # such as of a full disk: what is raised says the same
                _place(workspace, stage).write(json.dumps(asdict(note), indent=1, ensure_ascii=False).encode())
        raise
    place = _place(workspace, stage)
    if place.exists():
        place.remove()


def _sentence(error: Exception) -> str:
    """What a user is told of an error; of a mistake of ours its kind and its first line."""
    fault = faults.explained(error)
    if fault is not None:
        return str(fault)
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _place(workspace: Workspace, stage: str) -> Location:
    return workspace.folder("failures") / f"{stage}.json"
