"""Names of files that match whichever way letters and slashes are encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import texts


class Names:
    """Files by name, whichever way letters and slashes are encoded."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: index for index, name in enumerate(names)}
        self._alike = {texts.name_key(name): index for index, name in reversed(list(enumerate(names)))}

    def find(self, name: str) -> int | None:
        """The index of a file; the same name to the letter comes first."""
        return self._exact.get(name, self._alike.get(texts.name_key(name)))


@dataclass(frozen=True)
class Matched:
    """Which files names stand for: those found, in the order of the names; names without any; files found twice."""

    found: tuple[str, ...]
    absent: tuple[str, ...]
    repeated: tuple[str, ...]


def match(wanted: Sequence[str], present: Sequence[str]) -> Matched:
    """The files among those present that the wanted names stand for."""
    names = Names(present)
    places = [names.find(name) for name in wanted]
    found = tuple(present[place] for place in places if place is not None)
    absent = tuple(name for name, place in zip(wanted, places, strict=True) if place is None)
    return Matched(found, absent, tuple(name for name, times in Counter(found).items() if times > 1))
