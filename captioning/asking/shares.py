"""Prompt gadgets that ask each image some of the questions only: a sample of the prompts, one of the models.

Which ones is a function of the image's id and a seed, by hashes in the manner of rendezvous hashing: nothing is
stored, every machine finds the same, and a prompt or model that is added changes as few images' questions as it can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captioning.asking.cells import SHARE, Cell
from captioning.config import CaptionConfig
from captioning.models import Model
from captioning.rounds import ImageList
from pipeline.identity import digest

Lot = float  # in (0, 1), uniform


@dataclass(frozen=True)
class Shares:
    """Which cells an image is asked. `sample` prompts of each model (None: all), from all models or one by weight.

    With `among`, the images of a regeneration round, others are asked nothing.
    """

    cells: tuple[Cell, ...]
    sample: int | None = None
    weights: Mapping[tuple[str, str], float] | None = None  # (name, revision) → weight; None: every model sees all
    seed: int = 0
    among: ImageList | None = None

    @classmethod
    def of(
        cls, config: CaptionConfig, cells: Sequence[Cell], models: Sequence[Model], among: ImageList | None = None
    ) -> Shares:
        """The shares of a configuration. If every image is asked everything, cells keep their ids."""
        weights = None
        if config.mix == "split" and len(models) > 1:
            pairs = zip(models, config.models, strict=True)
            weights = {(model.name, model.revision): reference.weight for model, reference in pairs}
        prompts = {cell.asks.id for cell in cells}
        sample = config.prompts.sample if (config.prompts.sample or 0) < len(prompts) else None
        if sample is None and weights is None and among is None:
            return cls(tuple(cells))
        identity: dict[str, Any] = {
            "sample": sample,
            "seed": config.prompts.seed,
            "questions": sorted(cell.id for cell in cells) if sample else None,
            "weights": sorted([*key, weight] for key, weight in weights.items()) if weights else None,
        }
        if among is not None:
            identity["among"] = among.digest
        share = digest(identity)[:12]
        return cls(tuple(_shared(cell, share) for cell in cells), sample, weights, config.prompts.seed, among)

    @property
    def asks_everybody(self) -> bool:
        """Whether every image is asked all of the cells."""
        return self.sample is None and self.weights is None and self.among is None

    def asked(self, image: str) -> tuple[Cell, ...]:
        """The cells that this image is asked, in the plan's order."""
        if self.among is not None and image not in self.among:
            return ()
        return self._drawn(image)

    def _drawn(self, image: str) -> tuple[Cell, ...]:
        if self.sample is None and self.weights is None:
            return self.cells
        cells = self.cells
        if self.weights is not None:
            chosen = max(self.weights, key=lambda model: self._claim(image, model))
            cells = tuple(cell for cell in cells if (cell.model.name, cell.model.revision) == chosen)
        if self.sample is None:
            return cells
        drawn: set[str] = set()
        for model in {(cell.model.name, cell.model.revision): None for cell in cells}:
            own = [cell for cell in cells if (cell.model.name, cell.model.revision) == model]
            drawn |= self._sampled(image, model, own)
        return tuple(cell for cell in cells if cell.id in drawn)

    def _claim(self, image: str, model: tuple[str, str]) -> float:
        """The model with the highest claim gets the image: each as often as its weight says."""
        assert self.weights is not None
        return -self.weights[model] / math.log(self._lot(image, "model", *model))

    def _sampled(self, image: str, model: tuple[str, str], cells: Sequence[Cell]) -> set[str]:
        """Ids of the cells of `sample` prompts: every perspective once before any twice, each with what it needs."""
        assert self.sample is not None
        needs: dict[str, set[str]] = {}
        perspectives: dict[str, list[str]] = {}
        for cell in cells:
            name = cell.asks.id
            if name not in needs:
                perspectives.setdefault(cell.prompt.perspective, []).append(name)
                needs[name] = {name} | needs.get(cell.asks.after or "", set())
        rounds: list[tuple[int, Lot, str]] = []
        for perspective, names in perspectives.items():
            names.sort(key=lambda name: self._lot(image, *model, name))
            rounds += [
                (turn, self._lot(image, *model, "perspective", perspective), name) for turn, name in enumerate(names)
            ]
        taken: set[str] = set()
        for _, _, name in sorted(rounds):
            if len(taken | needs[name]) <= self.sample:
                taken |= needs[name]
        return {cell.id for cell in cells if cell.asks.id in taken}

    def _lot(self, image: str, *names: str) -> Lot:
        return (int(digest([self.seed, image, *names])[:13], 16) + 1) / (16**13 + 1)


def _shared(cell: Cell, share: str) -> Cell:
    parent = f"{cell.parent}{SHARE}{share}" if cell.parent else None
    return replace(cell, id=f"{cell.id}{SHARE}{share}", parent=parent)
