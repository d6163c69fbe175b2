"""What was left out of a table or mended in it, by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What was left out or mended, by reason, with the first place of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count one."""
        self.counts[reason] += 1
        self.first.setdefault(reason, place)

    def sentences(self, about: str) -> list[str]:
        """One for each reason, for the warnings of a manifest."""
        return [
            f"{about}: {reason}: {count:,} times, first in {self.first[reason]}"
            for reason, count in self.counts.items()
            if count
        ]
