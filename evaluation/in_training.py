"""Measures a model that is being trained: the served vector, on a sample of each benchmark.

An `InTraining` is handed to the train stage as its evaluator; it is pickled for ranks that are started elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from evaluation.benchmarks import Benchmark, Entry, read_all
from evaluation.config import EvaluateConfig
from evaluation.sampling import sampled
from pipeline.errors import ConfigError

KS = (1, 5)


@dataclass
class InTraining:
    """Figures by BENCHMARK/METRIC, the mean over what was asked, and by BENCHMARK/METRIC/QUERY."""

    config: EvaluateConfig
    _read: dict[Any, list[Benchmark]] = field(default_factory=dict, repr=False)

    def __call__(self, model: Any, preprocess: Any, tokenizer: Any, wanted: Any) -> dict[str, float]:
        """`wanted` has `benchmarks` (none: those of the evaluate stage) and `images`, of each of them."""
        from evaluation.encoder import Encoder
        from evaluation.measure import asked, encoded
        from evaluation.task import SERVED, Measurement

        device = next(model.parameters()).device.type
        changes = {"readouts": (SERVED,), "ks": KS, "device": device}
        config = self.config.model_copy(update=changes)
        encoder = Encoder("evaluation", "", "", model, preprocess, tokenizer, tuple(model.slots))
        figures: dict[str, float] = {}
        for benchmark in self._benchmarks(wanted.benchmarks or self.config.benchmarks, wanted.images):
            name = benchmark.name.replace("/", "-")
            by_metric: dict[str, list[Measurement]] = {}
            for measurement in asked(encoded(encoder, benchmark, config, None))[0]:
                if not measurement.metric.endswith("rank"):  # shares alone
                    by_metric.setdefault(measurement.metric, []).append(measurement)
            for metric, of_metric in by_metric.items():
                figures[f"{name}/{metric}"] = fmean(one.value for one in of_metric)
                figures |= {f"{name}/{metric}/{one.query}": one.value for one in of_metric}
        return figures

    def _benchmarks(self, entries: Iterable[Entry], images: int | None) -> list[Benchmark]:
        key = (tuple(entries), images)
        if not key[0]:
            raise ConfigError("train.evaluation has nothing to measure on; name benchmarks there or in evaluate")
        if key not in self._read:
            self._read[key] = [sampled(benchmark, images, self.config.seed) for benchmark in read_all(key[0])]
        return self._read[key]
