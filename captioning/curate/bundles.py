"""Bundles: the training view of an image, its kept captions and its alt text in one row.

Every image that can be read has a bundle, also if nothing but its alt text (or nothing at all) is left, so that
what training sees is decided by its slots and not by what went wrong here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.selection.lexical import distinct, mean_pairwise
from pipeline import schemas

TOKENIZER = "open_clip:SimpleTokenizer"  # CLIP's byte-pair encoding, 49,408 tokens


def make_bundles(images: pa.Table, draft: Draft, count_tokens: Callable[[str], int]) -> pa.Table:
    """The bundles of a shard, a row per readable image, in the order of `images`.

    The alt text comes first, then captions by perspective, granularity and caption_id. The diversity figures are
    over the kept captions without the alt text, null where there are fewer than two.
    """
    captions_of = {draft.columns["key"][image.start]: image for image in draft.images}
    rows = [
        _bundle(image, draft, captions_of.get(image["key"], range(0)), count_tokens)
        for image in images.to_pylist()
        if image["status"] == "ok"
    ]
    return schemas.table(schemas.BUNDLES, rows)


def _bundle(
    image: dict[str, Any], draft: Draft, captions: range, count_tokens: Callable[[str], int]
) -> dict[str, Any]:
    kept = sorted(draft.open_of(captions), key=lambda row: (*draft.slot(row), row))
    texts = [draft.texts[row] for row in kept]
    offsets = [row - captions.start for row in kept]
    alt_text = " ".join((image["alt_text"] or "").split())
    entries = [_alt_text(alt_text)] if alt_text else []
    entries += [_caption(draft, row) for row in kept]
    return {
        **{name: image[name] for name in ("shard", "key", "image_id", "offset", "size")},
        "captions": [{**entry, "weight": 1.0, "n_tokens": count_tokens(entry["text"])} for entry in entries],
        "mean_similarity": mean_pairwise(draft.similarity(captions)[np.ix_(offsets, offsets)]) if kept else None,
        "distinct_2": distinct(texts, 2) if len(kept) > 1 else None,
    }


def _caption(draft: Draft, row: int) -> dict[str, Any]:
    names = ("caption_id", "perspective", "granularity", "level")
    return {"source": "caption", "text": draft.texts[row], **{name: draft.columns[name][row] for name in names}}


def _alt_text(text: str) -> dict[str, Any]:
    """The alt text as a caption; no engine wrote it, so it has no caption_id."""
    return {
        "caption_id": None,
        "source": "alt",
        "perspective": "alt_text",
        "granularity": "phrase",
        "level": "scene",
        "text": text,
    }


@lru_cache(maxsize=1)
def clip_token_counter() -> Callable[[str], int]:
    """Count tokens as CLIP's context length does, with the start and the end token."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text)) + 2
