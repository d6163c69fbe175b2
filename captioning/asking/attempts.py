"""Notes of attempts, kept in the store: which worker began which work, and how often that crashed the engine alone.

A note is written when work is handed to an engine that is up and has answered a probe, and is removed with the work's
commit. Work whose note is there was begun by a worker or an engine that died: it goes image by image, alone with the
engine, each image with a note and a commit of its own. A death counts against an image only if the run saw it: its
worker saw its engine die, or another worker of the same run finds its note. A note of another run says that the whole
run died, for whatever reason: it counts against no image. The start of an engine is noted in the same way where the
engine lives in its worker's own process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.storage import Location

ATTEMPTS = "_attempts"
START = "start-"  # before the name of an actor: notes of engines that start
TRIES = 2  # an image that crashed the engine so often on its own is quarantined: it gets error rows


@dataclass(frozen=True)
class Worker:
    """Who works: a process (host and pid), for a run."""

    run: str
    process: str


@dataclass
class Attempt:
    """A piece of work that a worker has begun. It is a suspect if a worker or an engine died on it before."""

    note: Location
    worker: Worker
    deaths: int = 0  # that were seen while it was alone
    is_suspect: bool = False

    @classmethod
    def at(cls, store: Location, name: str, worker: Worker) -> Attempt:
        """What is known about this work."""
        note = store / ATTEMPTS / f"{name}.json"
        try:
            known = json.loads(note.read())
            deaths, alone, before = int(known["deaths"]), bool(known["alone"]), Worker(known["run"], known["process"])
        except FileNotFoundError:
            return cls(note, worker)
        except (ValueError, TypeError, KeyError):  # torn, or of an older version
            return cls(note, worker, is_suspect=True)
        seen = alone and before.run == worker.run and before != worker  # a worker of this run died with it
        return cls(note, worker, deaths + seen, is_suspect=True)

    def begin(self, *, alone: bool) -> None:
        """Note that the work goes to the engine, `alone` or in company."""
        note = {"run": self.worker.run, "process": self.worker.process, "alone": alone, "deaths": self.deaths}
        self.note.write(json.dumps(note).encode())

    def died(self) -> None:
        """Note that the engine died while the work was alone with it."""
        self.deaths += 1
        self.begin(alone=True)

    def progress(self) -> None:
        """A part of it was answered, so deaths before that need not be a habit."""
        if self.deaths:
            self.deaths = 0
            self.begin(alone=True)

    def clear(self) -> None:
        """The work is committed, or nothing more is known about it."""
        self.note.remove()


def forget_starts(store: Location) -> None:
    """Remove what runs that were killed have left of starting engines; it is of no more use."""
    for note, _ in (store / ATTEMPTS).files(".json", recursive=True):
        if note.name.startswith(START):
            note.remove()


def notes(store: Location) -> dict[str, bytes]:
    """All notes of a store, by their place."""
    notes = {}
    for note, _ in (store / ATTEMPTS).files(".json", recursive=True):
        with suppress(FileNotFoundError):  # committed in the meantime
            notes[note.uri] = note.read()
    return notes


def take_back(store: Location, before: Mapping[str, bytes]) -> None:
    """Take this run's notes back, as it was stopped: all others stay as they were `before` it."""
    for uri, note in notes(store).items():
        if uri not in before:
            Location.of(uri).remove()
        elif note != before[uri]:
            Location.of(uri).write(before[uri])
