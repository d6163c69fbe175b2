"""Bundles: the training view of an image, its kept captions and its alt text in one row.

Every image that can be read has a bundle, also if nothing but its alt text (or nothing at all) is left, so that
what training sees is decided by its slots and not by what went wrong here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from captioning.curate.alt_texts import PERSPECTIVE
from captioning.curate.bundles.sub_captions import granularity_of, sub_captions
from captioning.curate.config import SubCaptionsConfig
from captioning.curate.draft import Draft
from captioning.curate.selection.lexical import distinct
from captioning.curate.selection.padding import mean_pairwise
from captioning.curate.text_rules.words import words
from pipeline import schemas


def make_bundles(
    images: pa.Table,
    alt_texts: Mapping[str, str],
    draft: Draft,
    count_tokens: Callable[[str], int],
    parts: SubCaptionsConfig = SubCaptionsConfig(),  # noqa: B008 (frozen)
) -> pa.Table:
    """The bundles of a shard, a row per readable image, in the order of `images`; `alt_texts` are by their keys.

    The alt text comes first, then captions by perspective, granularity and caption_id, then their parts. The
    diversity figures are over the kept captions without alt text and parts, null where there are fewer than two.
    """
    captions_of = {draft.columns["key"][image.start]: image for image in draft.images}
    similarity = _mean_similarity(draft)
    rows = [
        _bundle(
            image, alt_texts.get(image["key"]), draft, captions_of.get(image["key"], range(0)), count_tokens, parts
        )
        | {"mean_similarity": similarity.get(image["key"])}
        for image in images.to_pylist()
        if image["status"] == "ok"
    ]
    return schemas.table(schemas.BUNDLES, rows)


def _bundle(
    image: dict[str, Any],
    alt_text: str | None,
    draft: Draft,
    captions: range,
    count_tokens: Callable[[str], int],
    parts: SubCaptionsConfig,
) -> dict[str, Any]:
    kept = sorted(draft.open_of(captions), key=lambda row: (*draft.slot(row), row))
    texts = [draft.texts[row] for row in kept]
    entries = [_alt_text(alt_text)] if alt_text else []
    entries += [_caption(draft, row) for row in kept]
    entries += _parts(draft, kept, parts) if parts.enabled else []
    return {
        **{name: image[name] for name in ("shard", "key", "image_id", "offset", "size")},
        "captions": [{"weight": 1.0, **entry, "n_tokens": count_tokens(entry["text"])} for entry in entries],
        "distinct_2": distinct(texts, 2) if len(kept) > 1 else None,
    }


def _mean_similarity(draft: Draft) -> dict[str, float]:
    """Mean lexical similarity of the kept captions by the key of their image, where there are two or more."""
    keys, means = draft.columns["key"], {}
    for block in draft.blocks():
        means_B = mean_pairwise(block.similarity_BMM, draft.is_open(block.rows_BM))
        for row, mean in zip(block.rows_BM[:, 0].tolist(), means_B.tolist(), strict=True):
            if mean == mean:
                means[keys[row]] = mean
    return means


def _caption(draft: Draft, row: int) -> dict[str, Any]:
    names = ("caption_id", "perspective", "granularity", "level")
    return {"source": "caption", "text": draft.texts[row], **{name: draft.columns[name][row] for name in names}}


def _parts(draft: Draft, kept: Sequence[int], config: SubCaptionsConfig) -> list[dict[str, Any]]:
    """Parts of the kept captions, without what the image says already. Those of one caption weigh together what it
    weighs, so that among texts of its perspective they are drawn as often as the whole.
    """
    said, entries = {draft.words(row) for row in kept}, []
    for row in kept:
        parts = sub_captions(draft.texts[row], draft.columns["caption_id"][row], config)
        own = [part for part in parts if words(part) not in said]
        said.update(words(part) for part in own)
        for part in own:
            about = {"source": "sub", "text": part, "granularity": granularity_of(part), "weight": 1 / len(own)}
            entries.append({**_caption(draft, row), **about})
    return entries


def _alt_text(text: str) -> dict[str, Any]:
    """The alt text as a caption; no engine wrote it, so it has no caption_id."""
    return {
        "caption_id": None,
        "source": "alt",
        "perspective": PERSPECTIVE,
        "granularity": "phrase",
        "level": "scene",
        "text": text,
    }
