"""Counts of what a source or table holds that was left out or mended, by reason, with an example of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.summary import counted

MOST_REASONS = 8  # in a sentence; the manifest has more
MOST_KEPT = 100  # reasons that are told apart at all: some hold names of files
OTHERS = "other reasons"


class Tally:
    """How often each reason was met, and the name or place of the first that it was met with."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count a reason once more, or `count` times."""
        if reason not in self._counts and len(self._counts) >= MOST_KEPT:
            reason = OTHERS
        self._counts[reason] = self._counts.get(reason, 0) + count
        self._examples.setdefault(reason, example)

    def update(self, others: Iterable[Tally | Mapping[str, Sequence[Any]]]) -> None:
        """Add what others counted, or what their `to_json` gave."""
        for other in others:
            reasons = other.to_json() if isinstance(other, Tally) else other
            for reason, (count, example) in reasons.items():
                self.add(reason, example, count)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __getitem__(self, reason: str) -> int:
        """How often a reason was met."""
        return self._counts.get(reason, 0)

    def example(self, reason: str) -> str:
        """The first that a reason was met with."""
        return self._examples[reason]

    def without(self, reason: str) -> Tally:
        """All but one reason."""
        rest = Tally()
        rest.update([{name: entry for name, entry in self.to_json().items() if name != reason}])
        return rest

    def counts(self) -> dict[str, int]:
        """The counts alone, the most frequent reason first."""
        return {reason: self._counts[reason] for reason in self._sorted()}

    def to_json(self) -> dict[str, list[Any]]:
        """Plain data for a record."""
        return {reason: [self._counts[reason], self._examples[reason]] for reason in sorted(self._counts)}

    def sentences(self, about: str) -> list[str]:
        """One for each reason, in the order in which they were met."""
        return [
            f"{about}: {reason}: {counted(count, 'time')}, first in {self._examples[reason]}"
            for reason, count in self._counts.items()
        ]

    def __str__(self) -> str:
        reasons = self._sorted()
        listed = [f"{reason}: {self._counts[reason]:,}, such as {self._examples[reason]}" for reason in reasons]
        more = [f"and {counted(len(reasons) - MOST_REASONS, 'more reason')}; the manifest has all"]
        return "; ".join(listed[:MOST_REASONS] + more * (len(reasons) > MOST_REASONS))

    def _sorted(self) -> list[str]:
        return sorted(self._counts, key=lambda reason: (-self._counts[reason], reason))
