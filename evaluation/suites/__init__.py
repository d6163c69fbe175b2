"""The suites: a file each, with a `SUITE`. A new file is a new suite of every evaluation and report."""

from importlib import import_module
from pkgutil import iter_modules

from evaluation.benchmarks import Benchmark
from evaluation.suite import Suite

SUITES: tuple[Suite, ...] = tuple(
    import_module(f"{__name__}.{name}").SUITE for name in sorted(module.name for module in iter_modules(__path__))
)


def asking(benchmark: Benchmark) -> list[Suite]:
    """The suites that have something to ask of a benchmark."""
    return [suite for suite in SUITES if suite.asks(benchmark)]
