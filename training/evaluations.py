"""Evaluation while a model is trained: on the first rank, between two steps, without a trace in what is trained.

What measures is handed in (`Evaluator`), as evaluation is a package of its own. Its figures stand in metrics.jsonl in
the row of the step after which they were measured, named eval/BENCHMARK/METRIC and eval/BENCHMARK/METRIC/QUERY; those
of the averaged weights beside them, as eval/BENCHMARK/ema_METRIC and so on.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from pipeline.errors import ConfigError, HolismError
from pipeline.messages import say
from training.config import RunConfig
from training.model import HolisticCLIP, make_tokenizer
from training.preprocess import make_preprocess, preprocessing
from training.watch import EMA, Evaluation

PREFIX = "eval/"


class Evaluator(Protocol):
    """Measures a model. It is pickled for ranks that are started elsewhere."""

    def __call__(self, model: Any, preprocess: Any, tokenizer: Any, wanted: Evaluation) -> Mapping[str, float]:
        """Figures by BENCHMARK/METRIC and BENCHMARK/METRIC/QUERY, of a model in evaluation mode."""


class Evaluations:
    """The evaluations of one run. `best` is the best value so far of the figure that decides, if one does.

    `ema` has the averaged weights, where they are to be measured too.
    """

    def __init__(
        self,
        name: str,
        config: RunConfig,
        model: HolisticCLIP,
        evaluator: Evaluator,
        ema: HolisticCLIP | None = None,
    ) -> None:
        self.best: float | None = None
        self._name, self._config, self._model, self._ema, self._evaluator = name, config, model, ema, evaluator
        described = preprocessing(model.visual.image_size[0], config.image_mean, config.image_std)
        self._preprocess, self._tokenizer = make_preprocess(described), make_tokenizer(model.architecture)

    def try_out(self) -> None:
        """Before the first step, so that what does not work is said now and not after hours. Raises HolismError."""
        self._tell("before the first step", self._measured())

    def after(self, step: int) -> dict[str, float]:
        """The figures after so many steps, for the log; none, and a warning, where they cannot be had."""
        began = time.monotonic()
        try:
            figures = self._measured()
        except HolismError as error:  # a lost picture of a benchmark is not worth a run of days
            say(f"train {self._name}: warning: no evaluation after step {step}: {error}", warning=True)
            return {}
        self._tell(f"step {step}", figures)
        named = {f"{PREFIX}{name}": round(value, 5) for name, value in figures.items()}
        return {**named, f"{PREFIX}seconds": round(time.monotonic() - began, 3)}

    def is_best(self, figures: Mapping[str, float]) -> bool:
        """Whether these are the best figures so far; then the next ones have to reach them."""
        decides = self._config.best
        value = figures.get(f"{PREFIX}{decides.figure}") if decides else None
        if decides is None or value is None or not decides.is_better(value, self.best):
            return False
        self.best = value
        return True

    def _measured(self) -> Mapping[str, float]:
        figures = dict(self._of(self._model))
        if self._ema:
            named = (name.partition("/") for name in figures)
            names = [f"{benchmark}/{EMA}{metric}" for benchmark, _, metric in named]
            figures |= zip(names, self._of(self._ema).values(), strict=True)
        decides = self._config.best
        if decides and decides.figure not in figures:
            raise ConfigError(
                f"train.best.figure is {decides.figure!r}, but the evaluation gives {', '.join(figures) or 'nothing'}"
            )
        return figures

    def _of(self, model: HolisticCLIP) -> Mapping[str, float]:
        with _left_alone(model):
            return self._evaluator(model, self._preprocess, self._tokenizer, self._config.evaluation)

    def _tell(self, when: str, figures: Mapping[str, float]) -> None:
        means = [name for name in figures if name.count("/") == 1]
        shown = ", ".join(f"{name} {100 * figures[name]:.1f} %" for name in means)
        say(f"train {self._name}: {when}: {shown}")


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards modes and random numbers go on as if nothing had been."""
    modes = [(module, module.training) for module in model.modules()]
    gpus = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    model.eval()
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        for module, training in modes:
            module.training = training
