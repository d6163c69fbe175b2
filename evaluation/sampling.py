"""A part of a benchmark, for measuring often: some of its images, and what is asked of those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluation.benchmark_tables import Queries
from evaluation.benchmarks import Benchmark
from evaluation.contents import Choices


def sampled(benchmark: Benchmark, images: int | None, seed: int) -> Benchmark:
    """So many of its images, drawn by seed, with what is asked of them; without a training split and without masks.

    Among fewer candidates figures are higher: compare them only with those of the same sample.
    """
    if benchmark.train is not None or benchmark.masks:
        benchmark = replace(benchmark, train=None, masks=())
    if images is None or images >= len(benchmark.files):
        return benchmark
    drawn = np.sort(np.random.default_rng(seed).choice(len(benchmark.files), size=images, replace=False))
    place_N = np.full(len(benchmark.files), -1)
    place_N[drawn] = np.arange(images)
    labels = {task: index_N[drawn] for task, index_N in benchmark.labels.items()}
    return replace(
        benchmark,
        files=tuple(benchmark.files[index] for index in drawn),
        pictures=tuple(benchmark.pictures[index] for index in drawn),
        labels={task: index_N for task, index_N in labels.items() if (index_N >= 0).any()},
        queries=tuple(part for queries in benchmark.queries if (part := _true_for(queries, place_N)) is not None),
        choices=tuple(left for choices in benchmark.choices if len((left := _of_drawn(choices, place_N)).image_Q)),
        copies=_copies(benchmark.original_N[drawn]),
    )


def _true_for(queries: Queries, place_N: np.ndarray) -> Queries | None:
    """The queries that are true for any drawn image; None where there is none."""
    image_P = place_N[queries.pair_image_P]
    text_P = queries.pair_text_P[image_P >= 0]
    texts, number_P = np.unique(text_P, return_inverse=True)
    if not len(texts):
        return None
    return Queries(queries.perspective, tuple(queries.texts[text] for text in texts), number_P, image_P[image_P >= 0])


def _of_drawn(choices: Choices, place_N: np.ndarray) -> Choices:
    """The questions about drawn images; of a pair both or none."""
    kept_Q = place_N[choices.image_Q] >= 0
    if choices.pair_Q is not None:
        kept_Q &= ~np.isin(choices.pair_Q, choices.pair_Q[~kept_Q])
    kept = np.flatnonzero(kept_Q)
    return replace(
        choices,
        image_Q=place_N[choices.image_Q[kept]],
        right=tuple(choices.right[question] for question in kept),
        wrong=tuple(choices.wrong[question] for question in kept),
        pair_Q=None if choices.pair_Q is None else choices.pair_Q[kept],
    )


def _copies(original_N: np.ndarray) -> dict[int, int]:
    """The drawn images that are copies of an earlier one, with that one."""
    _, first, which_N = np.unique(original_N, return_index=True, return_inverse=True)
    return {image: int(first[which]) for image, which in enumerate(which_N.tolist()) if first[which] != image}
