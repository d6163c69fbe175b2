"""Linear and few-shot probes of every single vector, where there is a training split (`evaluation.probes`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evaluation import probes, readouts
from evaluation.benchmarks import Benchmark
from evaluation.comparison import Row, compare
from evaluation.config import EvaluateConfig
from evaluation.features import EncodedBenchmark, Needs
from evaluation.intervals import MeanEstimate
from evaluation.probes import Split
from evaluation.task import SERVED, Card, Evaluation, Measurement, Subject, summed_up

LINEAR = "linear"
ACCURACY, MACRO = "accuracy", "macro_accuracy"


class Probes:
    """What a linear classifier reads from image vectors. Queries are `colour, 4 shots`."""

    name = "probes"
    notes: Mapping[str, str] = {
        "Probes": "Logistic regression on frozen, normalised vectors; its L2 penalty is chosen on a fifth of the "
        "training images, of few shots on as many others, and the classifier is fitted again. Few-shot figures are "
        f"means of {probes.DRAWS} draws; images of the test split are never fitted."
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether there is a training split with classes."""
        return benchmark.train is not None

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:  # noqa: ARG002
        """No texts."""
        return Needs()

    def measure(self, subject: Subject) -> tuple[list[Measurement], None]:
        """Accuracy, plain and macro, of every readout that is one vector."""
        encoder, found = subject.encoder, list[Measurement]()
        if subject.train is None:
            return [], None
        for readout in readouts.expand(subject.config.readouts, encoder.branches):
            if readout in ("max", "paper_mean"):  # several vectors; the direction of `mean` once more
                continue
            for task in subject.benchmark.labels:
                found += self._measured(readout, task, subject, subject.train)
        return found, None

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Macro accuracy of each probe."""
        return summed_up(evaluation, self.name, [MACRO])

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """The first linear probe."""
        rows = [row for row in self._rows(group, config) if LINEAR in row.label]
        return [rows[0].card(f"recognised, {rows[0].words}", group)] if rows else []

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """A row for each probe of each task."""
        return {"probes": self._rows(group, config)}

    def _measured(self, readout: str, task: str, subject: Subject, encoded: EncodedBenchmark) -> Iterator[Measurement]:
        benchmark, seed = subject.benchmark, subject.config.seed
        assert benchmark.train is not None
        train = _split(benchmark.train, task, readout, encoded, subject)
        test = _split(benchmark, task, readout, subject.features, subject)
        chance = 1 / len(benchmark.spec.classification[task].classes)
        for probe in subject.config.probes:
            if probe == LINEAR:
                protocol, query = f"linear_probe_of_{len(train.class_N)}_images", f"{task}, {LINEAR}"
                right_N = probes.linear(train, test, seed=seed)
            elif isinstance(probe, int) and probe <= probes.smallest_class(train):
                protocol, query = f"{probe}_shot_probe_{probes.DRAWS}_draws", f"{task}, {probe} shots"
                right_N = probes.few_shot(train, test, probe, seed=seed)
            else:
                continue
            for metric, estimate in ((MACRO, MeanEstimate(right_N, test.class_N)), (ACCURACY, MeanEstimate(right_N))):
                yield Measurement(self.name, protocol, readout, query, metric, chance, estimate)

    def _rows(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Row]:
        served = [m for m in group[0].measurements if (m.task, m.readout, m.metric) == (self.name, SERVED, MACRO)]
        return [
            replace(compare(group, (self.name, SERVED, m.query, MACRO), [ACCURACY], config), says="macro accuracy")
            for m in served
        ]


def _split(benchmark: Benchmark, task: str, readout: str, encoded: EncodedBenchmark, subject: Subject) -> Split:
    """The vectors of the images whose class can be told, with their classes."""
    class_N = benchmark.labels[task]
    told = np.flatnonzero(class_N >= 0)
    vector_NGD = readouts.vectors(readout, encoded.branch_NHD[told], subject.encoder.branches)
    return Split(vector_NGD[:, 0].float().cpu().numpy(), class_N[told])


TASK = Probes()
