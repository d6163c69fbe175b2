"""All that is measured of one model on one benchmark, as plain arrays that tables and pictures are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from evaluation import classification, intervals, readouts, rerank, retrieval
from evaluation.attention import Looks, looks
from evaluation.benchmark_tables import Queries
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.features import Encoder, Features, features
from pipeline.storage import Location

RETRIEVAL, CLASSIFICATION = "retrieval", "classification"
TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"
ACCURACY, MACRO_ACCURACY = "accuracy", "macro_accuracy"
PROTOCOL = {RETRIEVAL: "all_captions", CLASSIFICATION: "template_ensemble"}
EXAMPLES, EXAMPLE_DEPTH = 1, 6  # pictured queries per perspective, and pictures per query


@dataclass(frozen=True)
class Measurement:
    """One figure, with the outcome of every unit (query, image) it is the mean of."""

    suite: str
    readout: str
    query: str  # the perspective of the queries, or the classification task
    metric: str
    chance: float
    outcome_N: np.ndarray
    group_N: np.ndarray | None = None  # class of each unit where the figure is a mean over classes

    @property
    def value(self) -> float:
        return intervals.statistic(self.outcome_N, self.group_N)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.suite, self.readout, self.query, self.metric

    def replicates(self, config: EvaluateConfig) -> np.ndarray:
        """The figure on each bootstrap resample; paired between models measured on the same benchmark."""
        samples, seed = config.bootstrap_samples, config.seed
        return intervals.replicates(self.outcome_N, samples=samples, seed=seed, group_N=self.group_N)


@dataclass(frozen=True)
class Example:
    """A query and the images that the served vector ranks first for it."""

    perspective: str
    text: str
    relevant: int  # number of images the text is true for
    images: tuple[int, ...]
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Evaluation:
    """One model on one benchmark."""

    encoder: Encoder
    benchmark: Benchmark
    measurements: tuple[Measurement, ...]
    confusions: dict[str, np.ndarray]  # task: (expected) counts by actual and predicted class, of the served vector
    examples: tuple[Example, ...]
    looks: tuple[Looks, ...]
    by_key: dict[tuple[str, str, str, str], Measurement] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", {found.key: found for found in self.measurements})

    def find(self, suite: str, readout: str, query: str, metric: str) -> Measurement | None:
        return self.by_key.get((suite, readout, query, metric))


def evaluate(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location) -> Evaluation:
    """Encode a benchmark (or fetch its cached features) and measure every readout on it."""
    found = features(encoder, benchmark, config, cache)
    measurements: list[Measurement] = []
    confusions: dict[str, np.ndarray] = {}
    for readout in readouts.expand(config.readouts, encoder.branches, encoder.second_score):
        for queries in benchmark.queries:
            measurements += _retrieval(readout, queries, encoder, found, config)
        if readout == readouts.RERANK:
            continue  # it orders candidates; the few classes of a task are no list to search
        for task in benchmark.labels:
            actual_N, predicted = _predictions(readout, task, encoder, benchmark, found)
            measurements += _accuracies(readout, task, actual_N, predicted, benchmark)
            if readout == "mean":
                classes = len(benchmark.spec.classification[task].classes)
                confusions[task] = predicted.confusion(actual_N, classes)
    examples = tuple(_examples(encoder, benchmark, found, config))
    seen = tuple(looks(encoder, benchmark, config.seed))
    return Evaluation(encoder, benchmark, tuple(measurements), confusions, examples, seen)


def _relevance(queries: Queries, images: int) -> retrieval.Relevance:
    return retrieval.Relevance(queries.pair_text_P, queries.pair_image_P, len(queries.texts), images)


def _retrieval(
    readout: str, queries: Queries, encoder: Encoder, found: Features, config: EvaluateConfig
) -> Iterator[Measurement]:
    relevance = _relevance(queries, len(found.branch_NHD))
    by_text, by_image = _standings(readout, found.texts(queries.texts), relevance, encoder, found, config)
    for direction, standing, asked in (
        (TEXT_TO_IMAGE, by_text, relevance),
        (IMAGE_TO_TEXT, by_image, relevance.swapped()),
    ):
        for k, hit_Q in standing.hits(config.ks).items():
            chance = retrieval.chance(asked, k)
            yield Measurement(RETRIEVAL, readout, queries.perspective, f"{direction}_recall@{k}", chance, hit_Q)


def _standings(
    readout: str,
    text_TD: Tensor,
    relevance: retrieval.Relevance,
    encoder: Encoder,
    found: Features,
    config: EvaluateConfig,
) -> tuple[retrieval.Standing, retrieval.Standing]:
    """Where the right images of each text stand, and the right texts of each image."""
    if readout != readouts.RERANK:
        vector_NGD = readouts.vectors(readout, found.branch_NHD, encoder.branches)
        return (
            retrieval.stand_images(vector_NGD, text_TD, relevance),
            retrieval.stand_texts(vector_NGD, text_TD, relevance.swapped()),
        )
    assert found.patch_NPD is not None
    served_ND = readouts.vectors("mean", found.branch_NHD, encoder.branches)[:, 0]
    second, depth = encoder.model.conditioned_cosines, max(*config.ks, config.rerank_depth)
    return (
        rerank.stand_images(second, served_ND, found.patch_NPD, text_TD, depth, relevance),
        rerank.stand_texts(second, served_ND, found.patch_NPD, text_TD, depth, relevance.swapped()),
    )


def _predictions(
    readout: str, task: str, encoder: Encoder, benchmark: Benchmark, found: Features
) -> tuple[np.ndarray, classification.Predictions]:
    """Actual and predicted class of every image whose class can be told."""
    actual_N = benchmark.labels[task]
    told = np.flatnonzero(actual_N >= 0)
    spec = benchmark.spec.classification[task]
    prompts = [text for names in spec.prompts() for text in names]
    prompt_CTD = found.texts(prompts).unflatten(0, (len(spec.classes), len(spec.templates)))
    vector_NGD = readouts.vectors(readout, found.branch_NHD[told], encoder.branches)
    return actual_N[told], classification.predict(vector_NGD, classification.class_vectors(prompt_CTD))


def _accuracies(
    readout: str, task: str, actual_N: np.ndarray, predicted: classification.Predictions, benchmark: Benchmark
) -> Iterator[Measurement]:
    chance = 1 / len(benchmark.spec.classification[task].classes)
    right_N = predicted.right(actual_N)
    yield Measurement(CLASSIFICATION, readout, task, MACRO_ACCURACY, chance, right_N, actual_N)
    yield Measurement(CLASSIFICATION, readout, task, ACCURACY, chance, right_N)


def _examples(encoder: Encoder, benchmark: Benchmark, found: Features, config: EvaluateConfig) -> Iterator[Example]:
    """What the served vector finds for a few queries of each perspective, drawn by seed and not by looks."""
    vector_NGD = readouts.vectors("mean", found.branch_NHD, encoder.branches)
    for queries in benchmark.queries:
        rng = np.random.default_rng(config.seed)
        drawn = np.sort(rng.choice(len(queries.texts), size=min(EXAMPLES, len(queries.texts)), replace=False))
        text_TD = found.texts([queries.texts[index] for index in drawn])
        relevance = _relevance(queries, len(vector_NGD))
        for index, ranked_K in zip(drawn, retrieval.rank_images(vector_NGD, text_TD, EXAMPLE_DEPTH), strict=True):
            relevant = set(queries.pair_image_P[queries.pair_text_P == index].tolist())
            images = tuple(int(image) for image in ranked_K)
            right = tuple(image in relevant for image in images)
            yield Example(queries.perspective, queries.texts[index], int(relevance.counts()[index]), images, right)
