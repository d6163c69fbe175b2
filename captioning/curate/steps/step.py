"""One step of curation over all shards: it makes the parts that are missing or whose input changed, and no others.

Curation is a few steps, each with parts of its own, in a folder named after what the step depends on. So a changed
threshold makes anew what comes after it, and of a store that grew only the shards that changed are gone over again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from captioning.curate.steps.spread import Spread
from pipeline.commits import CommitLog, Part
from pipeline.identity import digest
from pipeline.progress import Progress
from pipeline.storage import Location

Parts = dict[str, Part]  # by kind


class Work(Protocol):
    """What a step does to one shard: commits its parts, one for each kind. Sent to other processes as it is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Folders of its parts."""

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Make and commit the parts of a shard, named by `part_name`, with the shard in their records."""


def part_name(kind: str, shard: str, input_digest: str) -> str:
    """Where a shard's part lies; its name says what it is made from, so that manifests of other inputs keep theirs."""
    return f"{kind}/{shard}-{input_digest[:8]}.parquet"


@dataclass(frozen=True)
class Step:
    """A step with its folder. `settings` is all that its parts depend on beside their shard's input."""

    name: str
    folder: Location
    spread: Spread
    verify: bool = False  # whether damaged parts are found, and made again

    @classmethod
    def at(cls, curate: Location, name: str, settings: Any, spread: Spread, *, verify: bool = False) -> Step:
        """The step of this name under these settings, inside the curate stage's folder."""
        return cls(name, curate / f"{name}-{digest(settings)[:12]}", spread, verify)

    def run(self, work: Work, inputs: Mapping[str, str]) -> dict[str, Parts]:
        """The parts of all shards by kind. `inputs` names the digest of what each shard's parts are made from."""
        log = CommitLog(self.folder)
        committed = log.parts(verify=self.verify)
        parts_of = {shard: self._there(committed, work.kinds, shard, inputs[shard]) for shard in inputs}
        missing = [shard for shard, parts in parts_of.items() if parts is None]
        if missing:
            progress = Progress(f"curate: {self.name}", len(inputs), "shards", done=len(inputs) - len(missing))
            task = _OneShard(work, {shard: inputs[shard] for shard in missing}, log)
            for shard, parts in self.spread.over(task, missing):
                parts_of[shard] = parts
                progress.update()
            progress.close()
        return {shard: parts for shard, parts in parts_of.items() if parts is not None}

    @staticmethod
    def _there(committed: Mapping[str, Part], kinds: tuple[str, ...], shard: str, wanted: str) -> Parts | None:
        names = {kind: part_name(kind, shard, wanted) for kind in kinds}
        return (
            {kind: committed[name] for kind, name in names.items()} if set(names.values()) <= set(committed) else None
        )


@dataclass(frozen=True)
class _OneShard:
    """A step's work with what it needs to know of each shard."""

    work: Work
    inputs: Mapping[str, str]
    log: CommitLog

    def __call__(self, shard: str) -> tuple[str, Parts]:
        return shard, self.work(shard, self.inputs[shard], self.log)
