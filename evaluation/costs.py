"""What a readout costs whoever serves it, beside what it reaches.

Vectors and bytes follow from the features: float32 for vectors that an index holds, half precision for patches that a
second score reads. Milliseconds are measured, of one text asked of all images on this machine, so they stand in the
report and in no table of results.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evaluation import readouts, rerank, retrieval
from evaluation.task import SERVED, Subject

TEXTS, ROUNDS = 8, 3  # asked together, and how often; the least of the rounds counts


@dataclass(frozen=True)
class Cost:
    """Of one readout, for each image, and for each text that is asked."""

    readout: str
    vectors: int
    bytes: int
    milliseconds: float


def costs(subject: Subject) -> list[Cost]:
    """Every readout that the model has."""
    encoder, config = subject.encoder, subject.config
    names = readouts.expand(config.readouts, encoder.branches, encoder.second_score, fitted=True)
    return [_cost(readout, subject) for readout in names]


def _cost(readout: str, subject: Subject) -> Cost:
    found, encoder = subject.features, subject.encoder
    text_TD = found.texts(subject.benchmark.queries[0].texts[:TEXTS])
    vector_NGD = readouts.vectors(
        SERVED if readout in (readouts.RERANK, readouts.WEIGHTED) else readout, found.branch_NHD, encoder.branches
    )
    images, vectors, width = vector_NGD.shape
    size = 4 * vectors * width
    ask: Callable[[], object] = lambda: readouts.scores(vector_NGD, text_TD)  # noqa: E731
    if readout == readouts.RERANK:
        assert found.patch_NPD is not None
        patch_NPD, second = found.patch_NPD, encoder.model.conditioned_cosines
        vectors, size = vectors + patch_NPD.shape[1], size + 2 * patch_NPD[0].numel()
        depth = max(*subject.config.ks, subject.config.rerank_depth)
        each_T = np.arange(len(text_TD))
        asked = retrieval.Relevance(each_T, each_T % images, len(text_TD), images)
        ask = lambda: rerank.stand_images(second, vector_NGD[:, 0], patch_NPD, text_TD, depth, asked)  # noqa: E731
    return Cost(readout, vectors, size, 1000 * _seconds(ask, vector_NGD.is_cuda) / len(text_TD))


def _seconds(ask: Callable[[], object], on_gpu: bool) -> float:
    found = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        ask()
        if on_gpu:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])
