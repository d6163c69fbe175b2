"""What a configuration asks of a store and what of that is missing: found from records alone, without any engine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from captioning import cells as planning
from captioning import prompts, store
from captioning.cells import Cell
from captioning.config import CaptionConfig
from captioning.models import Model, resolve
from captioning.rounds import Round
from captioning.shares import Shares
from captioning.store import Shard, WorkItem
from pipeline.commits import CommitLog, Part
from pipeline.manifest import Manifest
from pipeline.storage import Location


@dataclass(frozen=True)
class Demand:
    """The cells of a configuration, the shards they are asked about, and the committed parts with some of both."""

    models: tuple[Model, ...]
    shares: Shares
    shards: tuple[Shard, ...]
    parts: dict[str, Part]

    @classmethod
    def of(cls, config: CaptionConfig, ingest: Manifest, folder: Location, further: Round | None = None) -> Demand:
        """Find the cells (of a further round, if one is given) and look through the store's records."""
        models = tuple(resolve(reference, config.engine) for reference in config.models)
        cells = planning.plan(config, prompts.load(config.prompts.set), models, further.number if further else 0)
        shares = Shares.of(config, cells, models, further.images if further else None)
        shards = tuple(store.shards(ingest))
        return cls(models, shares, shards, _near(CommitLog(folder).parts(), shards, shares.cells))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells."""
        return self.shares.cells

    def of_model(self, model: Model) -> tuple[Cell, ...]:
        """The cells of one model."""
        return tuple(cell for cell in self.cells if cell.model == model)

    def selected(self) -> list[Part]:
        """The parts that hold something of these cells, by name."""
        ids = {cell.id for cell in self.cells}
        return [part for _, part in sorted(self.parts.items()) if ids & set(part.cells)]

    def work(self, cells: Sequence[Cell], chunk_images: int, *, retry_failed: bool) -> list[WorkItem]:
        """Items that cover what is missing of these cells (and what failed, if that is to be tried again)."""
        by_folder: dict[str, list[Part]] = {}
        for _, part in sorted(self.parts.items()):
            by_folder.setdefault(part.name.rsplit("/", 1)[0], []).append(part)
        if self.shares.among is not None:  # as many images of a commit, where only some of a range are asked
            chunk_images = math.ceil(chunk_images * self.images() / max(1, self.shares.among.count))
        items: list[WorkItem] = []
        for shard in self.shards:
            committed = by_folder.get(shard.folder, [])
            items += store.missing(shard, committed, cells, chunk_images)
            if retry_failed:
                items += store.failed(shard, committed, cells)
        return items

    def expected(self) -> int:
        """How many rows there will be in the end (closely, where images are asked different numbers of questions)."""
        each = round(sum(self.shares.portions().values()))
        return (self.images() if self.shares.among is None else self.shares.among.count) * each

    def images(self) -> int:
        """How many images can be asked about."""
        return sum(shard.rows - shard.errors for shard in self.shards)

    def captions(self, part: Part | None, cells: Iterable[Cell] | None = None) -> int:
        """Good rows of a part."""
        return _sum(part, self.cells if cells is None else cells, "captions")

    def errors(self, part: Part | None, cells: Iterable[Cell] | None = None) -> int:
        """Failed rows of a part."""
        return _sum(part, self.cells if cells is None else cells, "errors")


def _sum(part: Part | None, cells: Iterable[Cell], name: str) -> int:
    return sum(count[name] for count in store.figures_of(part, [cell.id for cell in cells]).values()) if part else 0


def _near(parts: Mapping[str, Part], shards: Sequence[Shard], cells: Sequence[Cell]) -> dict[str, Part]:
    """The parts about these shards that ask something of what these cells ask, if only about other images."""
    questions = {cell.question for cell in cells}
    folders = {shard.folder for shard in shards}
    return {
        name: part
        for name, part in parts.items()
        if name.rsplit("/", 1)[0] in folders and any(planning.question_of(cell) in questions for cell in part.cells)
    }
