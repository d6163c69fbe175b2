"""Counts of what a source holds that was left out or mended, by reason, with an example of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_REASONS = 8  # in a sentence; the manifest has more
MOST_KEPT = 100  # reasons that are told apart at all: some hold what somebody called a file
OTHERS = "other reasons"


class Tally:
    """How often each reason was met, and the name of the first that it was met with."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count a reason once more, or `count` times."""
        if reason not in self._found and len(self._found) >= MOST_KEPT:
            reason = OTHERS
        known, first = self._found.get(reason, (0, example))
        self._found[reason] = (known + count, first)

    def update(self, others: Iterable[Tally | Mapping[str, Sequence[Any]]]) -> None:
        """Add what others counted, or what their `to_json` gave."""
        for other in others:
            found = other._found if isinstance(other, Tally) else other
            for reason, (count, example) in found.items():
                self.add(reason, example, count)

    def __bool__(self) -> bool:
        return bool(self._found)

    def without(self, reason: str) -> Tally:
        """All but one reason."""
        rest = Tally()
        rest.update([{name: found for name, found in self._found.items() if name != reason}])
        return rest

    def counts(self) -> dict[str, int]:
        """The counts alone, the most frequent reason first."""
        return {reason: self._found[reason][0] for reason in self._sorted()}

    def to_json(self) -> dict[str, list[Any]]:
        """Plain data for a record."""
        return {reason: list(self._found[reason]) for reason in sorted(self._found)}

    def __str__(self) -> str:
        reasons = self._sorted()
        shown = [f"{reason}: {self._found[reason][0]:,}, such as {self._found[reason][1]}" for reason in reasons]
        more = [f"and {len(reasons) - MOST_REASONS} more reasons, which are in the manifest"]
        return "; ".join(shown[:MOST_REASONS] + more * (len(reasons) > MOST_REASONS))

    def _sorted(self) -> list[str]:
        return sorted(self._found, key=lambda reason: (-self._found[reason][0], reason))
