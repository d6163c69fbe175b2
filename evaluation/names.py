"""Names of files that match whichever way letters and slashes are encoded."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import texts


class Names:
    """Files by name, whichever way letters and slashes are encoded."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: index for index, name in enumerate(names)}
        self._alike = {texts.name_key(name): index for index, name in reversed(list(enumerate(names)))}

    def find(self, name: str) -> int | None:
        """The index of a file; the same name to the letter comes first."""
        return self._exact.get(name, self._alike.get(texts.name_key(name)))
