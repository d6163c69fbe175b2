"""Which branch has learned what: every branch alone, on queries of every perspective.

If branches specialise, the branch named after a perspective answers that perspective's queries best. The figure is
recall@1, where the branch is all that changes: texts, pictures and right answers are the same. Text to image is the
usual question; where many pictures are right for a text (a background, a style) it is soon answered by every branch,
and image to text still tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evaluation.readouts import PREFIX
from evaluation.task import Evaluation


@dataclass(frozen=True)
class BranchMatrix:
    """Recall@1 of each readout (row) on each perspective's queries (column)."""

    readouts: tuple[str, ...]  # branches first, then the readouts that combine them
    branches: int
    perspectives: tuple[str, ...]
    value_RP: np.ndarray
    chance_P: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """The branches."""
        return tuple(readout.removeprefix(PREFIX) for readout in self.readouts[: self.branches])

    def best_HP(self) -> np.ndarray:
        """Which branch answers each perspective best, as booleans; several where they tie."""
        value_HP = self.value_RP[: self.branches]
        return np.asarray(value_HP == value_HP.max(axis=0))

    def own_wins(self) -> tuple[str, ...]:
        """The perspectives that the branch of the same name answers better than any other branch."""
        return tuple(name for name, rivals in self._rivals() if rivals == 0)

    def own_ties(self) -> tuple[str, ...]:
        """The perspectives that the branch of the same name answers best, and another one just as well."""
        return tuple(name for name, rivals in self._rivals() if rivals > 0)

    def _rivals(self) -> Iterator[tuple[str, int]]:
        """Each perspective whose own branch is among the best, with the number of others that are."""
        best_HP = self.best_HP()
        for column, name in enumerate(self.perspectives):
            if name in self.names and best_HP[self.names.index(name), column]:
                yield name, int(best_HP[:, column].sum()) - 1


def matrix(evaluation: Evaluation, direction: str = "text_to_image") -> BranchMatrix | None:
    """The branch × perspective matrix; None for a model of one branch, or where there are no queries."""
    metric = f"{direction}_recall@1"
    figures = [figure for figure in evaluation.measurements if figure.task == "retrieval" and figure.metric == metric]
    order = list(dict.fromkeys(figure.readout for figure in figures))
    single = [readout for readout in order if readout.startswith(PREFIX)]
    if not single:
        return None
    readouts = single + [readout for readout in order if readout not in single]
    names = [readout.removeprefix(PREFIX) for readout in single]
    asked = list(dict.fromkeys(figure.query for figure in figures))
    perspectives = tuple(sorted(asked, key=lambda name: names.index(name) if name in names else len(names)))
    value = {(figure.readout, figure.query): figure.value for figure in figures}
    chance = {figure.query: figure.chance for figure in figures}
    return BranchMatrix(
        tuple(readouts),
        len(single),
        perspectives,
        np.array([[value[readout, perspective] for perspective in perspectives] for readout in readouts]),
        np.array([chance[perspective] for perspective in perspectives]),
    )
