"""Checkpoints of a run: written by a thread from a copy, so that the loop waits for the copy alone.

Of a run's checkpoints the newest whole one counts. A damaged one is named and left aside: it is of steps that are
trained again, and goes when the next one is written.
"""

import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from pipeline.errors import HolismError, StoreError
from pipeline.messages import say
from pipeline.storage import Location
from training.checkpoint import DamagedError, read_checkpoint


class CheckpointWriter:
    """Writes one file at a time; what goes wrong is raised by a later call. Leaving it waits for the last."""

    def __init__(self, folder: Location, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: dict[Callable[..., None], Future[None]] = {}  # what is written, by how
        self._written = time.monotonic()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    @property
    def minutes_ago(self) -> float:
        """How long ago the last one was begun, or this run, if there was none."""
        return (time.monotonic() - self._written) / 60

    def write(self, state: Mapping[str, Any], step: int) -> None:
        """Copies the state and returns; the file follows. One that is still being written is waited for first."""
        self._written = time.monotonic()
        self._start(_write, self._folder, state, step, self._keep)

    def write_best(self, state: Mapping[str, Any]) -> None:
        """The same for the best model so far, beside the folder: its weights alone, as nobody goes on from it."""
        weights = {name: value for name, value in state.items() if name not in ("optimizer", "ema", "rng")}
        self._start(_write_best, best_file(self._folder.parent), weights)

    def _start(self, write: Callable[..., None], place: Location, state: Mapping[str, Any], *more: Any) -> None:
        if write in self._last:
            self._last[write].result()
        self._last[write] = self._thread.submit(write, place, _copied(state), *more)

    def wait(self) -> None:
        """Until all are in their places. Raises StoreError where one could not be written."""
        for last in self._last.values():
            last.result()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return all(last.done() for last in self._last.values())

    def check(self) -> None:
        """Raises what went wrong with the last one, if it has come to its end."""
        if self.is_idle:
            self.wait()


def best_file(run: Location) -> Location:
    """Where a run that is under way keeps its best model."""
    return run / "best.pt"


def best_checkpoint(run: Location) -> dict[str, Any] | None:
    """The best model of a run, None if none is kept. A damaged one is named on the terminal, and is none."""
    if not (file := best_file(run)).exists():
        return None
    try:
        return read_checkpoint(file)
    except DamagedError as error:
        say(f"train: warning: the best model so far is lost: {error}", warning=True)
        return None


def newest_checkpoint(folder: Location) -> dict[str, Any] | None:
    """The last whole checkpoint of a run, None if there is none at all. Damaged ones are named on the terminal.

    Raises StoreError where there are only damaged ones.
    """
    files = [file for file, _ in folder.files(".pt")]
    damage = None
    for file in reversed(files):
        try:
            return _with_origin(read_checkpoint(file), file)
        except DamagedError as error:
            damage = error
            say(f"train: warning: {error}; the one before is used", warning=True)
    if damage is not None:
        raise StoreError(f"no checkpoint in {folder} is whole; delete the folder to train this run from its start")
    return None


def _with_origin(state: dict[str, Any], file: Location) -> dict[str, Any]:
    if "origin" not in state:
        raise StoreError(
            f"the checkpoint {file} is of an earlier version, which did not note what it came from; delete its folder "
            "to train this run from its start"
        )
    return state


def _write_best(file: Location, state: Mapping[str, Any]) -> None:
    try:
        file.write(_as_bytes(state))
    except HolismError as error:
        raise StoreError(f"the best model was not written: {error}") from error


def _write(folder: Location, state: Mapping[str, Any], step: int, keep: int) -> None:
    """Writes step-N.pt in one atomic step, then removes older ones but for the newest, and those of later steps."""
    name = f"step-{step:09d}.pt"
    try:
        (folder / name).write(_as_bytes(state))
    except HolismError as error:
        whole = [file.name for file, _ in folder.files(".pt")]
        raise StoreError(
            f"checkpoint {name} was not written, and the last one is {whole[-1] if whole else 'none'}: {error}"
        ) from error
    files = [file for file, _ in folder.files(".pt")]
    upto = [file for file in files if file.name <= name]
    for old in upto[:-keep] + files[len(upto) :]:
        old.remove()


def _as_bytes(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _copied(value: Any) -> Any:
    """The same in the machine's memory, which further steps leave alone."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value
