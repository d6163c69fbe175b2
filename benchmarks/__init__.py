"""Measurements, each a program of its own, run from the checkout: `python -m benchmarks.NAME`."""

import sys
from types import TracebackType

from pipeline.errors import HolismError


def _say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Whoever runs a measurement gets the sentence of a user error alone."""
    if isinstance(error, HolismError):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _say
