"""Zero-shot classification: every readout on every task of the benchmark (`evaluation.classification`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import classification, readouts
from evaluation.benchmarks import Benchmark
from evaluation.comparison import Row, compare
from evaluation.config import EvaluateConfig
from evaluation.features import Needs
from evaluation.intervals import MeanEstimate
from evaluation.task import SERVED, Card, Evaluation, Measurement, Subject, summed_up

ACCURACY, MACRO_ACCURACY = "accuracy", "macro_accuracy"
LARGEST_CONFUSION = 40  # classes; a larger matrix is no picture any more
CARDS = 2  # tasks


class Classification:
    """The class whose description is nearest. What it keeps: counts by actual and predicted class, by task."""

    name = "classification"
    notes: Mapping[str, str] = {
        "Classification": "A class is the renormalised mean of the normalised embeddings of its name in every "
        "template; chance is 1 / number of classes."
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether there are tasks."""
        return bool(benchmark.labels)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:  # noqa: ARG002
        """The prompts of all classes."""
        return Needs([text for task in benchmark.spec.classification for text in _prompts(benchmark, task)])

    def measure(self, subject: Subject) -> tuple[list[Measurement], dict[str, np.ndarray]]:
        """Accuracy, plain and macro. Candidates put in order by a second score are no readout of a few classes."""
        found, confusions = list[Measurement](), dict[str, np.ndarray]()
        encoder, benchmark = subject.encoder, subject.benchmark
        for readout in readouts.expand(subject.config.readouts, encoder.branches, encoder.second_score):
            if readout == readouts.RERANK:
                continue
            for task in benchmark.labels:
                actual_N, predicted = _predictions(readout, task, subject)
                described, right_N = benchmark.spec.classification[task], predicted.right(actual_N)
                classes = len(described.classes)
                for metric, estimate in (
                    (MACRO_ACCURACY, MeanEstimate(right_N, actual_N)),
                    (ACCURACY, MeanEstimate(right_N)),
                ):
                    found.append(
                        Measurement(self.name, described.protocol, readout, task, metric, 1 / classes, estimate)
                    )
                if readout == SERVED:
                    confusions[task] = predicted.confusion(actual_N, classes)
        return found, confusions

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Macro accuracy of each task."""
        return summed_up(evaluation, self.name, [MACRO_ACCURACY])

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """The first tasks."""
        return [row.card(f"{row.words} recognised, zero-shot", group) for row in self._rows(group, config)[:CARDS]]

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """Tasks, readouts, confusions."""
        return {
            "tasks": self._rows(group, config),
            "readouts": [(evaluation.encoder.run, view) for evaluation in group if (view := _by_readout(evaluation))],
            "confusions": _confusions(group),
        }

    def _rows(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Row]:
        return [
            compare(group, (self.name, SERVED, task, MACRO_ACCURACY), [ACCURACY], config)
            for task in group[0].benchmark.labels
        ]


def _prompts(benchmark: Benchmark, task: str) -> list[str]:
    return [text for texts in benchmark.spec.classification[task].prompts() for text in texts]


def _predictions(readout: str, task: str, subject: Subject) -> tuple[np.ndarray, classification.Predictions]:
    """Actual and predicted class of every image whose class can be told."""
    actual_N = subject.benchmark.labels[task]
    told = np.flatnonzero(actual_N >= 0)
    spec = subject.benchmark.spec.classification[task]
    prompt_TD = subject.features.texts(_prompts(subject.benchmark, task))
    class_CD = classification.class_vectors(prompt_TD.unflatten(0, (len(spec.classes), len(spec.templates))))
    vector_NGD = readouts.vectors(readout, subject.features.branch_NHD[told], subject.encoder.branches)
    return actual_N[told], classification.predict(vector_NGD, class_CD)


def _by_readout(evaluation: Evaluation) -> dict[str, Any] | None:
    """Macro accuracy of every readout on every task; None where there is one readout, or no task."""
    found = [m for m in evaluation.measurements if (m.task, m.metric) == (Classification.name, MACRO_ACCURACY)]
    names = list(dict.fromkeys(figure.readout for figure in found))
    if len(names) < 2:
        return None
    tasks = list(dict.fromkeys(figure.query for figure in found))
    value = {(figure.readout, figure.query): figure.value for figure in found}
    best = {task: max(value[readout, task] for readout in names) for task in tasks}
    return {"readouts": names, "tasks": tasks, "value": value, "best": best}


def _confusions(group: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Per task the confusion matrix of every run, rows as shares of the actual class."""
    found = []
    for task, spec in group[0].benchmark.spec.classification.items():
        if len(spec.classes) > LARGEST_CONFUSION:
            continue
        runs = [(evaluation.encoder.run, _shares(evaluation.shown[Classification.name][task])) for evaluation in group]
        found.append({"task": task, "classes": spec.classes, "runs": runs})
    return found


def _shares(count_CC: np.ndarray) -> list[list[float]]:
    shares: list[list[float]] = (count_CC / np.maximum(count_CC.sum(axis=1, keepdims=True), 1)).tolist()
    return shares


TASK = Classification()
