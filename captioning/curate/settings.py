"""Which settings a step depends on: those that its gadgets are made from.

No list is kept by hand, where a new gadget's section could be missing and stale verdicts be served. The gadgets are
made once from a configuration that notes what is read of it. A gadget that keeps the configuration may read anything
later, so such a step depends on all of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from captioning.curate.config import CurateConfig
from pipeline.config import semantic


class _Noting:
    """A configuration that notes which of its fields are read; whoever asks for more than a field reads all."""

    def __init__(self, config: CurateConfig, read: set[str]) -> None:
        self._config, self._read = config, read

    def __getattr__(self, name: str) -> Any:
        fields = type(self._config).model_fields
        self._read.update([name] if name in fields else fields)
        return getattr(self._config, name)


def read_by(config: CurateConfig, make: Callable[[CurateConfig], Any]) -> dict[str, Any]:
    """The settings that decide what is made: those that `make` reads of the configuration that it is given."""
    read: set[str] = set()
    noting = _Noting(config, read)
    alive = weakref.ref(noting)
    made = make(cast("CurateConfig", noting))
    del noting
    if alive() is not None:  # something that was made holds it
        read = set(type(config).model_fields)
    del made
    return {name: value for name, value in semantic(config).items() if name in read}
