"""Settings of what is watched of a run while it trains: where its figures go, evaluation, the best checkpoint.

None of it changes the model that is trained. Light: reading a configuration must not import torch.
"""

from typing import Any, Literal

from pydantic import Field

from pipeline.config import Section

Sinks = dict[str, dict[str, Any]]  # a sink's name, and the options that it is made with
TENSORBOARD = "tensorboard"
EMA = "ema_"  # before the metric's name in figures of the averaged weights


def checked_sinks(sinks: Sinks) -> Sinks:
    """Raises ValueError where a name can be none of a sink."""
    for name in sinks:
        module, colon, attribute = name.partition(":")
        if name != TENSORBOARD and not (module and colon and attribute.isidentifier()):
            raise ValueError(f"found the sink {name!r}, expected {TENSORBOARD} or MODULE:NAME (docs/training.md)")
    return sinks


class Evaluation(Section):
    """Measuring the model while it is trained."""

    every: int | None = Field(None, ge=1, description="steps between evaluations; empty: none")
    benchmarks: tuple[str, ...] = Field((), description="benchmark folders; empty: those of evaluate.benchmarks")
    images: int | None = Field(
        1000, ge=2, description="images of each benchmark, drawn by evaluate.seed; empty: all of them"
    )


class Best(Section):
    """Which of the evaluated models is kept beside the last one."""

    figure: str = Field(
        description="what it is best in, such as NAME/macro_accuracy for the benchmark NAME; NAME/ema_macro_accuracy: "
        "of the averaged weights (train.ema), which are kept then"
    )
    mode: Literal["max", "min"] = Field("max", description="whether the largest value is best, or the smallest")

    @property
    def of_ema(self) -> bool:
        """Whether the averaged weights are meant."""
        return self.figure.partition("/")[2].startswith(EMA)

    def is_better(self, value: float, than: float | None) -> bool:
        """At least as good: of equals the later one, which has trained longer."""
        return than is None or (value >= than if self.mode == "max" else value <= than)
