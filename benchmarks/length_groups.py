"""A whole training step with captions in length groups, against the same step with all captions padded to 77 tokens.

B/32 towers, five captions an image, the trainer's own loader and step. The pictures are a demo workspace's. The
captions are its own, or, for natural photos, stand-ins of stated lengths: one long caption of 50 to 77 tokens an image
and four short ones of 8 to 30, evenly spread.

    python -m benchmarks.length_groups demo/workspace
    python -m benchmarks.length_groups demo/workspace --mix photos
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.made_up import LONG_TOKENS, SHORT_TOKENS, WORDS
from pipeline.clip_tokens import clip_encoder
from pipeline.config import build
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from pipeline.workspace import Workspace
from training import trainer
from training.batches import Batch
from training.bundles import Bundles, read_bundles
from training.config import RunConfig
from training.index.piece import Piece
from training.ranks import Ranks
from training.text import length_groups

LONG, SHORT = "detail", ("nouns", "main_object", "background", "style")
CONTEXT = 77
WIDE_BATCH = 1024  # the share of tokens is worked out for a batch of this size too


def recipe(images: int, precision: str) -> RunConfig:
    """ViT-B-32 with a class token for each of the five slots, losses and all else as by default."""
    settings = {
        "model": "ViT-B-32",
        "branch_kind": "cls",
        "projection": "shared",
        "slots": [LONG, *SHORT],
        "global_batch": images,
        "warmup_steps": 0,
        "lr": 1e-6,
        "precision": precision,
        "workers": 0,
        "device": "cpu",
    }
    return build(RunConfig, settings)


def as_photos(bundles: Bundles) -> Bundles:
    """The same images with stand-ins for captions of natural photos, no two alike."""
    rng = np.random.default_rng(0)

    def tokens(slot: int) -> list[int]:
        low, high = LONG_TOKENS if slot == 0 else SHORT_TOKENS
        return clip_encoder()(" ".join(rng.choice(WORDS, size=rng.integers(low, high + 1) - 2)))

    def as_photo(piece: Piece) -> Piece:
        found = [tokens(slot) for slot in piece.slot.tolist()]
        return replace(
            piece,
            first_token=np.cumsum([0, *map(len, found)]),
            token=np.array([token for ids in found for token in ids], dtype=np.uint16),
            path=None,
        )

    return replace(bundles, pieces=tuple(map(as_photo, bundles.pieces)), path=None)


def padded(batch: Batch) -> Batch:
    """The same batch with all its texts in one tensor as wide as the context."""
    wide = [F.pad(text_TL, (0, CONTEXT - text_TL.shape[1])) for text_TL in batch.texts]
    return replace(batch, texts=(torch.cat(wide),))


def tokens(batch: Batch) -> int:
    """What the text tower is given."""
    return sum(text_TL.numel() for text_TL in batch.texts)


def share_of_wide_batch(bundles: Bundles) -> float:
    """Tokens in length groups, of those at 77, for the different texts of the first 1,024 images."""
    texts = set()
    for number in range(min(WIDE_BATCH, len(bundles))):
        piece, row = bundles.sample(number)
        of_row = piece.captions(row)
        texts |= {piece.tokens(caption)[: CONTEXT - 2].tobytes() for caption in range(of_row.start, of_row.stop)}
    lengths = [len(text) // 2 + 2 for text in texts]  # two bytes a token, and two ends
    grouped = sum(len(group) * max(lengths[i] for i in group) for group in length_groups(lengths))
    return grouped / (CONTEXT * len(lengths))


def measure(run: trainer._Run, steps: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each step in groups and padded, taking turns on the same batches, and the share of tokens."""
    grouped_seconds, padded_seconds, shares = [], [], []
    for number in range(steps + 1):
        batch = run.batches[number]
        wide = padded(batch)
        if number == 0:
            ways = (batch.to(run.ranks.device), wide.to(run.ranks.device))
            one, other = (run.gradients(way)[1].total.detach() for way in ways)
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 if run.config.precision == "fp32" else 5e-2)
        seconds = []
        for way in (batch, wide):
            began = time.perf_counter()
            trainer._step(run, way)
            seconds.append(time.perf_counter() - began)
        if number:  # the first step of each is warm-up
            grouped_seconds.append(seconds[0])
            padded_seconds.append(seconds[1])
        shares.append(tokens(batch) / tokens(wide))
    return grouped_seconds, padded_seconds, shares


def main() -> None:
    """Print a row of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", help="of a finished demo")
    parser.add_argument("--mix", choices=("demo", "photos"), default="demo")
    parser.add_argument("--images", type=int, default=16, help="in a batch")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    workspace = Workspace(options.workspace)
    config = recipe(options.images, options.precision)
    bundles = read_bundles(workspace.manifests("curate")[0], config.slots)
    if options.mix == "photos":
        bundles = as_photos(bundles)
    reader = ShardReader(shard_uris(workspace.manifests("ingest")[0]))
    with tempfile.TemporaryDirectory() as folder:
        alone = Ranks(0, 1, torch.device("cpu"))
        place = Location.of(folder)
        run = trainer._start("benchmark", config, bundles, reader, place, alone, data="", cache=place)
        grouped, wide, shares = measure(run, options.steps)
    print("| captions | precision | padded s | groups s | times as fast | tokens | tokens at B = 1,024 |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    medians = statistics.median(wide), statistics.median(grouped)
    print(
        f"| {options.mix} | {options.precision} | {medians[0]:.2f} | {medians[1]:.2f} | "
        f"{medians[0] / medians[1]:.2f} | {statistics.mean(shares):.3f} | {share_of_wide_batch(bundles):.3f} |"
    )


if __name__ == "__main__":
    main()
