"""Encodes a benchmark with a model and asks everything that the tasks ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import Needs, features
from evaluation.knowledge import known
from evaluation.processes import encode_together
from evaluation.task import Evaluation, Measurement, Subject
from evaluation.tasks import asking
from pipeline.storage import Location


def evaluate(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location) -> Evaluation:
    """Encode a benchmark (or fetch its cached features) and measure what every task has to ask of it."""
    subject = encoded(encoder, benchmark, config, cache)
    measurements, shown = asked(subject)
    knows = known(subject)
    # Without its weights: the models of all evaluations would else be in memory when the report is made.
    return Evaluation(replace(encoder, model=None), benchmark, tuple(measurements), shown, knows)


def encoded(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location | None) -> Subject:
    """A model and all that the tasks need of a benchmark; kept nowhere without a cache."""
    needs = needs_of(benchmark, config)
    encode_together(encoder, benchmark, config, cache, needs)
    found = features(encoder, benchmark, config, cache, needs)
    train = None
    if benchmark.train is not None and config.probes:
        encode_together(encoder, benchmark.train, config, cache, Needs(needs.texts))
        train = features(encoder, benchmark.train, config, cache, Needs(needs.texts))
    return Subject(encoder, benchmark, found, config, train)


def asked(subject: Subject) -> tuple[list[Measurement], dict[str, Any]]:
    """The figures of all tasks, and what each keeps for its pictures."""
    measurements, shown = list[Measurement](), dict[str, Any]()
    for task in asking(subject.benchmark):
        figures, shown[task.name] = task.measure(subject)
        measurements += figures
    return measurements, shown


def needs_of(benchmark: Benchmark, config: EvaluateConfig) -> Needs:
    """What is to be encoded of a benchmark, for all its tasks."""
    return Needs.all_of(task.needs(benchmark, config) for task in asking(benchmark))
