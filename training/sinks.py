"""Where figures go beside metrics.jsonl: TensorBoard, or whatever else a module of the user's brings.

A sink is made at the start of a run by `MODULE:NAME(run, **options)`, gets the figures of each step by `add`, and is
closed at the end: ten lines for W&B, MLflow or trackio (docs/training.md has them). The first rank alone has sinks.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.messages import say
from pipeline.storage import Location
from training import watch


@dataclass(frozen=True)
class RunInfo:
    """What a sink is told of a run.

    `id` stays the same when a run goes on after a stop. It then goes on from step `start`: what was reported of that
    step and later ones comes again.
    """

    name: str
    id: str
    recipe: Mapping[str, Any]
    folder: Location
    start: int


class Sink(Protocol):
    """Takes figures of one run."""

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a step, by name; the names that metrics.jsonl has."""

    def close(self) -> None:
        """Nothing more comes. Whatever is on its way is to arrive."""


class TensorBoard:
    """Event files for `tensorboard --logdir`, in the run's folder or where `folder` says."""

    def __init__(self, run: RunInfo, folder: str | None = None) -> None:
        place = Location.of(folder) / run.id if folder else run.folder / watch.TENSORBOARD
        if not place.is_local:
            raise ConfigError(
                f"train.sinks.tensorboard: its files cannot be written to {place}; set folder to one of this machine"
            )
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "train.sinks.tensorboard needs the package tensorboard; install it (pip install tensorboard) or leave "
                "the sink out: metrics.jsonl has all figures"
            ) from error
        self._writer = SummaryWriter(str(place), purge_step=run.start)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Sinks:
    """All sinks of a run. One that fails is named and left out: figures are not worth a run of days."""

    def __init__(self, wanted: watch.Sinks, run: RunInfo) -> None:
        """Raises ConfigError where a sink cannot be made."""
        self._run = run
        self._open: dict[str, Sink] = {}
        for name, options in wanted.items():
            self._open[name] = _made(name, run, options)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of metrics.jsonl. What is None in them (a loss of no caption) is left out."""
        for row in rows:
            figures = {name: float(value) for name, value in row.items() if name != "step" and value is not None}
            for name, sink in list(self._open.items()):
                self._try(name, partial(sink.add, row["step"], figures))

    def close(self) -> None:
        for name, sink in list(self._open.items()):
            self._try(name, sink.close)
        self._open.clear()

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever somebody else's library raises
            del self._open[name]
            reason = (str(error) or type(error).__name__).splitlines()[0]
            say(
                f"train {self._run.name}: warning: the sink {name} failed and gets nothing more ({reason}); "
                "metrics.jsonl has all figures",
                warning=True,
            )


def _made(name: str, run: RunInfo, options: Mapping[str, Any]) -> Sink:
    make = TensorBoard if name == watch.TENSORBOARD else _found(name)
    try:
        sink: Sink = make(run, **options)
    except ConfigError:
        raise
    except Exception as error:  # whatever somebody else's library raises
        raise ConfigError(f"train.sinks: {name} cannot be opened ({type(error).__name__}: {error})") from error
    return sink


def _found(name: str) -> Callable[..., Sink]:
    module, _, attribute = name.partition(":")
    try:
        make: Callable[..., Sink] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(
            f"train.sinks: {name} cannot be imported ({error}); put the folder of {module}.py on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"train.sinks: the module {module} has no {attribute}") from error
    return make
