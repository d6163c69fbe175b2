"""Composition: every readout on the choices of every kind (`evaluation.composition`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation import composition, readouts
from evaluation.benchmarks import Benchmark
from evaluation.comparison import Row, compare
from evaluation.config import EvaluateConfig
from evaluation.contents import Choices
from evaluation.features import Needs
from evaluation.intervals import MeanEstimate
from evaluation.task import SERVED, Card, Evaluation, Measurement, Subject, summed_up
from pipeline.thumbnails import thumbnail

ACCURACY = "choice_accuracy"
PAIRED = {group: f"pair_{group}" for group in composition.GROUPS}
BATCH = 8192  # texts that are scored together
DRAWN, PICTURED = 64, 2  # questions per kind that pictured ones are chosen from, and pictured hits and misses


@dataclass(frozen=True)
class Answer:
    """What the served vector says to a question that is kept for the report."""

    question: int
    outcome: float
    apart: float  # by how much the lowest right text scores above the highest wrong one


class Composition:
    """The right text among others that are nearly the same. What it keeps: answers drawn by seed, by kind."""

    name = "composition"
    protocol = "choices"
    notes: Mapping[str, str] = {
        "Composition": "A question is answered if every right text scores above every wrong one. Of pairs of images "
        "and texts: text is both images with their own text, image both texts with their own image, group all of it."
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether there are choices."""
        return bool(benchmark.choices)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:  # noqa: ARG002
        """All texts to choose from."""
        return Needs([text for choices in benchmark.choices for text in _texts(choices)])

    def measure(self, subject: Subject) -> tuple[list[Measurement], dict[str, list[Answer]]]:
        """Accuracy of each kind, and of pairs what is asked of them."""
        encoder, found, kept = subject.encoder, list[Measurement](), dict[str, list[Answer]]()
        for readout in readouts.expand(subject.config.readouts, encoder.branches, encoder.second_score):
            if readout == readouts.RERANK:  # which puts found images in order; here nothing is searched
                continue
            vector_NGD = readouts.vectors(readout, subject.features.branch_NHD, encoder.branches)
            for choices in subject.benchmark.choices:
                scores = _by_question(choices, vector_NGD, subject)
                outcome_Q = _answered(choices, scores)
                figures = [(ACCURACY, _chance(choices), outcome_Q), *_paired(choices, vector_NGD, subject)]
                found += [
                    Measurement(
                        self.name, self.protocol, readout, choices.kind, metric, chance, MeanEstimate(outcomes)
                    )
                    for metric, chance, outcomes in figures
                ]
                if readout == SERVED:
                    kept[choices.kind] = list(_drawn(choices, scores, outcome_Q, subject.config.seed))
        return found, kept

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Accuracy of each kind, and the group score of pairs."""
        return summed_up(evaluation, self.name, [ACCURACY, PAIRED["group"]])

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """The first kind."""
        row = self._rows(group, config)[0]
        return [row.card(f"chosen right, {row.words}", group)]

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """A row for each kind, and for each thing that is asked of pairs."""
        pairs = [choices.kind for choices in group[0].benchmark.choices if choices.pair_Q is not None]
        return {
            "kinds": self._rows(group, config),
            "pairs": [
                (asked, [self._row(group, kind, metric, config) for kind in pairs])
                for asked, metric in PAIRED.items()
                if pairs
            ],
            "drawn": DRAWN,
            "examples": _hits_and_misses(group),
        }

    def _rows(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Row]:
        return [self._row(group, choices.kind, ACCURACY, config) for choices in group[0].benchmark.choices]

    def _row(self, group: Sequence[Evaluation], kind: str, metric: str, config: EvaluateConfig) -> Row:
        return replace(compare(group, (self.name, SERVED, kind, metric), [], config), says="chosen right")


def _texts(choices: Choices) -> Iterator[str]:
    for several in (choices.right, choices.wrong):
        for texts in several:
            yield from texts


def _by_question(choices: Choices, vector_NGD: Tensor, subject: Subject) -> list[np.ndarray]:
    """The scores of each question's texts, first the right ones."""
    asked = [(*right, *wrong) for right, wrong in zip(choices.right, choices.wrong, strict=True)]
    image = [image for image, texts in zip(choices.image_Q.tolist(), asked, strict=True) for _ in texts]
    score_T = _scores([text for texts in asked for text in texts], image, vector_NGD, subject)
    return np.split(score_T, np.cumsum([len(texts) for texts in asked])[:-1])


def _answered(choices: Choices, scores: Sequence[np.ndarray]) -> np.ndarray:
    """The outcome of each question, (Q,)."""
    return np.array(
        [
            composition.answered(score[: len(right)], score[len(right) :])
            for score, right in zip(scores, choices.right, strict=True)
        ]
    )


def _chance(choices: Choices) -> float:
    counts = zip(choices.right, choices.wrong, strict=True)
    return float(np.mean([composition.chance(len(right), len(wrong)) for right, wrong in counts]))


def _paired(choices: Choices, vector_NGD: Tensor, subject: Subject) -> Iterator[tuple[str, float, np.ndarray]]:
    """Metric, chance and outcomes of what is asked of pairs, where there are any."""
    if choices.pair_Q is not None:
        paired = composition.paired(_pairs(choices, vector_NGD, subject))
        for group, chance in composition.paired_chance().items():
            yield PAIRED[group], chance, paired[group]


def _drawn(choices: Choices, scores: Sequence[np.ndarray], outcome_Q: np.ndarray, seed: int) -> Iterator[Answer]:
    """Answers to some questions, by seed and in the order drawn."""
    rng = np.random.default_rng(seed)
    for question in rng.choice(len(scores), size=min(DRAWN, len(scores)), replace=False).tolist():
        right, score = len(choices.right[question]), scores[question]
        yield Answer(question, float(outcome_Q[question]), float(score[:right].min() - score[right:].max()))


def _hits_and_misses(group: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Of each kind the first questions drawn that the first run answers, and those it does not, with all answers."""
    benchmark, found = group[0].benchmark, []
    for choices in benchmark.choices:
        drawn = list(zip(*(evaluation.shown[TASK.name][choices.kind] for evaluation in group), strict=True))
        for is_hit in (True, False):
            for answers in [answers for answers in drawn if (answers[0].outcome == 1) == is_hit][:PICTURED]:
                image = int(choices.image_Q[answers[0].question])
                found.append(
                    {
                        "kind": choices.kind,
                        "is_hit": is_hit,
                        "source": thumbnail(benchmark.image(image).read()),
                        "file": benchmark.files[image],
                        "right": choices.right[answers[0].question],
                        "wrong": choices.wrong[answers[0].question],
                        "answers": answers,
                    }
                )
    return found


def _pairs(choices: Choices, vector_NGD: Tensor, subject: Subject) -> np.ndarray:
    """Scores of both images with both right texts, of every pair, (Q, 2, 2) by image and text."""
    assert choices.pair_Q is not None
    side_Q2 = np.argsort(choices.pair_Q, kind="stable").reshape(-1, 2)
    image_Q22 = np.repeat(choices.image_Q[side_Q2][:, :, None], 2, axis=2)
    text_Q22 = np.repeat(side_Q2[:, None, :], 2, axis=1)
    texts = [choices.right[question][0] for question in text_Q22.ravel()]
    return _scores(texts, image_Q22.ravel().tolist(), vector_NGD, subject).reshape(-1, 2, 2)


def _scores(texts: Sequence[str], image: Sequence[int], vector_NGD: Tensor, subject: Subject) -> np.ndarray:
    """The score of each text with its image, (T,)."""
    parts = []
    for start in range(0, len(texts), BATCH):
        text_TD = subject.features.texts(texts[start : start + BATCH])
        vector_TGD = vector_NGD[torch.tensor(image[start : start + BATCH], device=vector_NGD.device)]
        parts.append(torch.einsum("tgd,td->tg", vector_TGD, text_TD).amax(dim=1).cpu())
    found: np.ndarray = torch.cat(parts).numpy()
    return found


TASK = Composition()
