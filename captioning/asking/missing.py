"""What a configuration asks of a store, and what of that is missing: image by image, from the index alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from captioning import index, prompts, store
from captioning.asking import cells as planning
from captioning.asking.cells import Cell, question_of
from captioning.asking.shares import Shares
from captioning.config import CaptionConfig
from captioning.index import AnswerIndex, Answers
from captioning.models import Model, resolve
from captioning.rounds import Round
from captioning.store import Shard, WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.manifest import Manifest
from pipeline.storage import Location

Wanted = tuple[str, ...]  # ids of cells


@dataclass(frozen=True)
class Demand:
    """The cells of a configuration, the shards they are asked about, and what the store has of them.

    `parts` are all parts that models wrote, `index` says what they hold; `ids` are the image ids of the shards' rows.
    """

    models: tuple[Model, ...]
    shares: Shares
    shards: tuple[Shard, ...]
    ids: tuple[np.ndarray, ...]
    folder: Location
    parts: Mapping[str, Part]
    index: AnswerIndex

    @classmethod
    def of(
        cls,
        config: CaptionConfig,
        ingest: Manifest,
        folder: Location,
        further: Round | None = None,
        *,
        save: bool = False,
        verify: bool = False,
    ) -> Demand:
        """Find the cells (of a regeneration round, if one is given) and look through the store's records.

        `save` keeps the index on disk; with `verify` parts that are damaged count as missing.
        """
        models = tuple(resolve(reference, config.engine) for reference in config.models)
        cells = planning.plan(config, prompts.load(config.prompts.set), models, further.number if further else 0)
        shares = Shares.of(config, cells, models, further.images if further else None)
        shards = tuple(store.shards(ingest))
        parts = _by_models(CommitLog(folder).parts(verify=verify))
        known = index.load(folder, parts, save=save)
        return cls(models, shares, shards, tuple(map(_ids_of, shards)), folder, parts, known)

    def updated(self, made: Mapping[str, Part]) -> Demand:
        """The same with parts that were made meanwhile."""
        parts = {**self.parts, **made}
        known = index.load(self.folder, parts, save=True)
        return Demand(self.models, self.shares, self.shards, self.ids, self.folder, parts, known)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells."""
        return self.shares.cells

    def of_model(self, model: Model) -> tuple[Cell, ...]:
        """The cells of one model."""
        return tuple(cell for cell in self.cells if cell.model == model)

    @cached_property
    def places(self) -> tuple[np.ndarray, ...]:
        """For each shard, where its images are in the index; -1 where nothing is known."""
        return tuple(map(self.index.look_up, self.ids))

    def selected(self) -> list[tuple[Part, list[str]]]:
        """The parts that hold something of these cells about these images, each with the shards that it serves."""
        ids = {cell.id for cell in self.cells}
        serves: dict[str, list[str]] = {}
        for shard, places in zip(self.shards, self.places, strict=True):
            for name in self.index.parts_of(places):
                serves.setdefault(name, []).append(shard.name)
        return [(self.parts[name], serves[name]) for name in sorted(serves) if ids & set(self.parts[name].cells)]

    def work(self, cells: Sequence[Cell], chunk_images: int, *, retry_failed: bool) -> list[WorkItem]:
        """Items that cover what is missing of these cells (and what failed, if that is to be tried again).

        A picture that occurs more than once is asked about where it occurs first.
        """
        planner = _Planner(self, cells, retry_failed)
        return [
            item
            for number, rows in enumerate(self._first_occurrences())
            for item in planner.items(number, rows, chunk_images)
        ]

    def totals(self) -> dict[str, dict[str, int]]:
        """By cell: how many images have an answer, a failure, a failure for good. A picture counts with each key."""
        ids = {cell.id for cell in self.cells}
        counts = {cell.id: {"captions": 0, "errors": 0, "quarantined": 0} for cell in self.cells}
        for answers, images in self._states():
            for name, held in (
                ("captions", answers.ok), ("errors", answers.failed), ("quarantined", answers.quarantined)
            ):  # fmt: skip
                for cell in held & ids:
                    counts[cell][name] += images
        return counts

    def images(self) -> int:
        """How many images can be asked about."""
        return sum(shard.rows - shard.errors for shard in self.shards)

    def _states(self) -> Iterator[tuple[Answers, int]]:
        """The answers that images have, with how many images have just these."""
        counts = np.zeros(len(self.index.answers), np.int64)
        for places in self.places:
            counts += np.bincount(self.index.answers_I[places[places >= 0]], minlength=len(counts))
        return ((answers, int(n)) for answers, n in zip(self.index.answers, counts, strict=True) if n)

    def _first_occurrences(self) -> Iterator[np.ndarray]:
        """For each shard the rows of images that can be read and were not in a row before."""
        whole = np.concatenate([np.zeros(0, "S16"), *self.ids])
        unique, first = np.unique(whole, return_index=True)
        is_first = np.zeros(len(whole), bool)
        is_first[first[unique != b""]] = True
        start = 0
        for ids in self.ids:
            yield np.flatnonzero(is_first[start : start + len(ids)])
            start += len(ids)


class _Planner:
    """Cuts what is missing into items: images that lack the same cells go together."""

    def __init__(self, demand: Demand, cells: Sequence[Cell], retry_failed: bool) -> None:
        self.demand, self.cells, self.retry_failed = demand, cells, retry_failed
        self.order = {cell.id: number for number, cell in enumerate(cells)}
        self.all = tuple(self.order)
        shares = demand.shares
        self.asks_everybody = shares.asks_everybody
        self._lacks: dict[tuple[int, Wanted], Wanted] = {}

    def items(self, number: int, rows: np.ndarray, chunk_images: int) -> Iterator[WorkItem]:
        """The items of a shard. `rows` are those of its images that count."""
        shard, places = self.demand.shards[number], self.demand.places[number]
        groups: dict[tuple[Wanted, bool], list[tuple[int, int]]] = {}
        if self.asks_everybody:
            rows = rows[self._lacks_anything(places[rows])]
        for row in rows.tolist():
            asked = self._asked(self.demand.ids[number][row])
            lacking = self.lacking(int(places[row]), asked)
            if lacking:
                drawn = lacking == asked and not self.asks_everybody  # all that its share says
                groups.setdefault((self.all if drawn else lacking, drawn), []).append((row, len(lacking)))
        for (lacking, _), members in sorted(groups.items(), key=lambda group: group[1][0]):
            for start in range(0, len(members), chunk_images):
                chunk = members[start : start + chunk_images]
                picked = tuple(row for row, _ in chunk)
                sources = self._sources(lacking, places[list(picked)])
                yield WorkItem(shard, picked, lacking, sum(count for _, count in chunk), sources)

    def _lacks_anything(self, places: np.ndarray) -> np.ndarray:
        """Which images lack something, where all are asked the same: most of a store that only grew lack nothing."""
        if not len(self.demand.index.images_I):
            return np.ones(len(places), bool)
        state = self.demand.index.answers_I[places]
        incomplete = {int(one): bool(self.lacking(int(places[state == one][0]), self.all)) for one in np.unique(state)}
        return (places < 0) | np.array([incomplete[one] for one in state.tolist()], bool)

    def _asked(self, image: bytes) -> Wanted:
        if self.asks_everybody:
            return self.all
        asked = self.demand.shares.asked(image.ljust(16, b"\0").hex())
        return tuple(cell.id for cell in asked if cell.id in self.order)

    def lacking(self, place: int, asked: Wanted) -> Wanted:
        """The cells that an image lacks of those it is asked; a failed field is asked for with its whole answer."""
        key = (int(self.demand.index.answers_I[place]) if place >= 0 else -1, asked)
        if key not in self._lacks:
            known = self.demand.index.answers_of(place)
            there = known.ok if self.retry_failed else known.ok | known.failed
            failed = known.failed if self.retry_failed else ()
            again = {cell.parent for cell in self.cells if cell.container and cell.id in failed and cell.id in asked}
            self._lacks[key] = tuple(
                cell.id
                for cell in self.cells
                if cell.id in asked
                and (cell.id not in there or cell.id in again or (cell.container and cell.parent in again))
            )
        return self._lacks[key]

    def _sources(self, lacking: Wanted, places: np.ndarray) -> tuple[str, ...]:
        """The parts that hold what these cells go on from, or answers to the same questions."""
        parents = {cell.parent for cell in self.cells if cell.id in lacking and cell.parent} - set(lacking)
        questions = {question_of(cell) for cell in lacking}
        known = (self.demand.index.answers_of(place).ok for place in set(places.tolist()))
        useful = {cell for held in known for cell in held if cell in parents or question_of(cell) in questions}
        held = self.demand.index.parts_of(places)
        if self.retry_failed:  # all, so that a further try has a part of its own beside that of the failure
            return tuple(sorted(held))
        useful -= set(lacking)
        return tuple(sorted(name for name in held if useful & set(self.demand.parts[name].cells)))


def _by_models(parts: Mapping[str, Part]) -> dict[str, Part]:
    """The parts that answers of models are in; imported tables have parts for a shard as it is."""
    return {name: part for name, part in parts.items() if "table" not in part.detail}


def _ids_of(shard: Shard) -> np.ndarray:
    recorded = (shard.digest, "ingest")
    images = schemas.read(Location.of(shard.images), schemas.IMAGES, ["image_id"], recorded=recorded)
    return index.ids(images["image_id"])


def tokens(parts: Iterable[Part], cells: Iterable[Cell]) -> dict[str, int]:
    """Tokens that the answers to these cells took, in all of these parts."""
    ids, totals = [cell.id for cell in cells], dict.fromkeys(store.TOKENS, 0)
    for part in parts:
        for count in store.figures_of(part, ids).values():
            for name in totals:
                totals[name] += count[name]
    return totals
