"""Encodes a benchmark with a model and asks everything that the suites ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from evaluation.attention import looks
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import Needs, features
from evaluation.suite import Evaluation, Measurement, Subject
from evaluation.suites import asking
from pipeline.storage import Location


def evaluate(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location) -> Evaluation:
    """Encode a benchmark (or fetch its cached features) and measure what every suite has to ask of it."""
    found = features(encoder, benchmark, config, cache, needs_of(benchmark, config))
    subject = Subject(encoder, benchmark, found, config)
    measurements, shown = list[Measurement](), dict[str, Any]()
    for suite in asking(benchmark):
        figures, shown[suite.name] = suite.measure(subject)
        measurements += figures
    looked = tuple(looks(encoder, benchmark, config.seed))
    # Without its weights: the models of all evaluations would else be in memory when the report is made.
    return Evaluation(replace(encoder, model=None), benchmark, tuple(measurements), shown, looked)


def needs_of(benchmark: Benchmark, config: EvaluateConfig) -> Needs:
    """What is to be encoded of a benchmark, for all its suites."""
    return Needs.all_of(suite.needs(benchmark, config) for suite in asking(benchmark))
