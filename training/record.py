"""What the first rank writes of a run: metrics, sinks, progress, evaluations, checkpoints. Others write nothing."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import HolismError
from pipeline.messages import say
from pipeline.progress import Progress
from pipeline.stops import Held
from training.config import RunConfig
from training.evaluations import Evaluations
from training.figures import note, without_nan
from training.health import WINDOW, dead_branches
from training.metrics import MetricsLog
from training.saving import CheckpointWriter
from training.sinks import Sinks

State = dict[str, Any]  # all that a checkpoint holds


@dataclass
class Record:
    """The record of one run. `state` gives the run's state as it is when it is asked."""

    name: str
    config: RunConfig
    branches: Sequence[str]
    state: Callable[[], State]
    log: MetricsLog
    sinks: Sinks
    checkpoints: CheckpointWriter
    progress: Progress
    evaluations: Evaluations | None = None
    dead: dict[str, str] = field(default_factory=dict)  # a warning for each branch that is dead now
    is_closed: bool = False

    @property
    def is_late(self) -> bool:
        """Whether the clock wants a checkpoint."""
        minutes = self.config.checkpoint_minutes
        return minutes is not None and self.checkpoints.minutes_ago >= minutes

    def add(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Rows of the steps since the last look. Returns the seconds that are not to count as a step's: none."""
        rows = [without_nan(row) for row in rows]
        self.log.add(rows)
        self.sinks.add(rows)
        self._warn_of_the_dead()
        if rows:
            self.progress.update(len(rows) * self.config.global_batch, note(rows))
        return 0.0

    def evaluate_and_add(self, rows: Sequence[dict[str, Any]]) -> float:
        """The same, with what is measured now in the last row; a model that is the best so far is kept.

        Returns the seconds that this took.
        """
        assert self.evaluations is not None
        began, step = time.monotonic(), rows[-1]["step"] + 1
        try:
            figures = self.evaluations.after(step)
            rows[-1].update(figures)
        finally:  # a stop that does not wait must not lose the rows
            self.progress.waited(time.monotonic() - began)
            self.add(rows)
        if self.evaluations.is_best(figures):
            state = self.state()
            weights = state["ema" if self.config.best and self.config.best.of_ema else "model"]
            self.checkpoints.write_best({**state, "model": weights, "figures": figures})
        return time.monotonic() - began

    def save(self) -> None:
        """A checkpoint, and the metrics up to it."""
        self.log.save()
        state = self.state()
        self.checkpoints.write(state, state["step"])

    def save_and_say(self, stop: Held) -> None:
        """Before the run is left; a checkpoint that cannot be written does not keep it."""
        self.is_closed = True
        try:
            self.save()
            self.checkpoints.wait()
            text = f"a checkpoint of step {self.state()['step']} is written"
        except HolismError as error:
            text = str(error)
        say(f"train {self.name}: stopped by {stop.join().name}; {text}")

    def close(self) -> None:
        """After the last step."""
        self.log.save()
        self.progress.close()

    def _warn_of_the_dead(self) -> None:
        """Says so when a branch dies; `dead` holds those that are dead by the last rows."""
        dead = dead_branches(self.log.last(WINDOW), self.branches)
        for name in dead.keys() - self.dead.keys():
            say(f"train {self.name}: warning: {dead[name]}", warning=True)
        self.dead = dead
