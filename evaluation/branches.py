"""Which branch has learned what: every branch alone, on queries of every perspective.

If branches specialise, the branch named after a perspective answers that perspective's queries best. The figure is
text-to-image recall@1, where the branch is all that changes: texts, gallery and right answers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.measure import RETRIEVAL, TEXT_TO_IMAGE, Evaluation
from evaluation.readouts import PREFIX

METRIC = f"{TEXT_TO_IMAGE}_recall@1"


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

    def own_ties(self) -> tuple[str, ...]:
        """Those of `own_wins` that another branch answers just as well."""
        tied_P = self.best_HP().sum(axis=0) > 1
        return tuple(name for name in self.own_wins() if tied_P[self.perspectives.index(name)])

    def own_wins(self) -> tuple[str, ...]:
        """The perspectives that no branch answers better than the one of the same name."""
        best_HP = self.best_HP()
        return tuple(
            name
            for column, name in enumerate(self.perspectives)
            if name in self.names and best_HP[self.names.index(name), column]
        )


def matrix(evaluation: Evaluation) -> BranchMatrix | None:
    """The branch × perspective matrix; None for a model of one branch, or where there are no queries."""
    figures = [figure for figure in evaluation.measurements if figure.suite == RETRIEVAL and figure.metric == METRIC]
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
