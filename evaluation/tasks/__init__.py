"""The tasks: a file each, with a `TASK`. A new file is a new task of every evaluation and report."""

from importlib import import_module
from pkgutil import iter_modules

from evaluation.benchmarks import Benchmark
from evaluation.task import Task

TASKS: tuple[Task, ...] = tuple(
    import_module(f"{__name__}.{name}").TASK for name in sorted(module.name for module in iter_modules(__path__))
)


def asking(benchmark: Benchmark) -> list[Task]:
    """The tasks that have something to ask of a benchmark."""
    return [task for task in TASKS if task.asks(benchmark)]
