"""Speed of similarity and selection on one core: images a second by method, and duplicates.

    python -m benchmarks.curation_selection [--images 20000] [--dimensions 384]

Captions are drawn from 5,000 words by Zipf's law, 3 to 45 words long, 8 to 12 for an image in four slots; embeddings
are random unit vectors with a common part, given beforehand. Verdicts and scores are part of the time. Run it with
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from captioning.curate.config import CurateConfig
from captioning.curate.diversity.figures import Diversity
from captioning.curate.draft import Draft
from captioning.curate.gadgets.duplicates import Duplicates, DuplicatesConfig
from captioning.curate.gadgets.select import Select
from captioning.curate.measures.measured import Measured

SLOTS = (("detail", "paragraph"), ("summary", "sentence"), ("style", "sentence"), ("nouns", "word"))


def columns_of(images: int, seed: int) -> dict[str, list[str]]:
    """Captions as a shard's table has them."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"word{i}" for i in range(5000)])
    share = 1 / np.arange(1, len(vocabulary) + 1)
    names = ("key", "image_id", "caption_id", "text", "perspective", "granularity")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for image in range(images):
        for caption in range(int(rng.integers(8, 13))):
            perspective, granularity = SLOTS[caption % len(SLOTS)]
            text = " ".join(rng.choice(vocabulary, int(rng.integers(3, 46)), p=share / share.sum()))
            values = (f"{image:07}", f"{image:07}", f"{caption:02}", text, perspective, granularity)
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    return columns


def embeddings(captions: int, dimensions: int, seed: int) -> np.ndarray:
    """Unit vectors whose cosines are about 0.5."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(captions, dimensions)).astype(np.float32)
    vectors += rng.normal(size=dimensions).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def selection(method: str, similarity: str, embed: Measured | None) -> Callable[[Draft], object]:
    """The gadget `select` with these settings, of at most six captions of an image."""
    settings = {
        "method": method,
        "similarity": similarity,
        "quality": "uniform" if method == "max_min" else "length",
        "max_captions": 6,
    }
    config = CurateConfig.model_validate({"select": settings})
    return Select(config.select, coverage=True, embed=embed, limits=config.length.limits()).apply


def seconds(work: Callable[[Draft], object], columns: dict[str, list[str]], is_selection: bool) -> float:
    """Time of one piece of work on a fresh draft. Selection finds the texts compared, as `duplicates` left them."""
    draft = Draft(columns)
    for row in draft.open_rows():
        draft.words(row)  # the text gadgets have cut all texts into words
    if is_selection:
        draft.blocks()
    started = time.perf_counter()
    work(draft)
    return time.perf_counter() - started


def main() -> None:
    """Print the table of benchmarks/curation.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_selection", description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3, help="of which the best counts")
    options = parser.parse_args()
    columns = columns_of(options.images, seed=0)
    captions = len(columns["text"])
    vectors = embeddings(captions, options.dimensions, seed=1)

    def embed(_: Draft, rows: Sequence[int]) -> np.ndarray:
        return vectors[rows]

    works: dict[str, Callable[[Draft], object]] = {
        "duplicates, with lexical similarity": Duplicates(DuplicatesConfig(), coverage=True).apply,
    }
    for similarity, given in (("semantic", embed), ("lexical", None)):
        for method in ("max_min", "mmr", "dpp"):
            works[f"select, {method.replace('_', '-')}, {similarity}"] = selection(method, similarity, given)
    works["all figures of diversity"] = Diversity(embed, "random").of_shard
    print(
        f"{options.images:,} images, {captions:,} captions, {options.dimensions} dimensions, best of {options.repeats}"
    )
    print("| | images/s | captions/s | µs per caption |")
    print("| --- | ---: | ---: | ---: |")
    for name, work in works.items():
        spent = min(seconds(work, columns, name.startswith("select")) for _ in range(options.repeats))
        print(
            f"| {name} | {options.images / spent:,.0f} | {captions / spent:,.0f} | {1e6 * spent / captions:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
