"""A few images with their captions as Markdown: what a stage's captions look like, without opening the browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import schemas
from pipeline.errors import HolismError
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.manifest import Manifest
from pipeline.shards import ShardReader

IMAGES = 6
MOST_CAPTIONS = 24  # of one image
MOST_LETTERS = 300  # of one caption
_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]()#+|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def markdown(ingest: Manifest, captions: Manifest, curated: Manifest | None = None) -> str:
    """Pictures beside their captions; with `curated`, dropped ones are struck out and say why."""
    shard = shard_names(ingest)[0]
    by_image = _captions(captions, shard, ingest)
    verdicts = _verdicts(curated, shard) if curated else {}
    lines = []
    for image in _images(ingest, shard):
        own = by_image.get(image["image_id"], [])
        told = [_told(caption, verdicts) for caption in own[:MOST_CAPTIONS]] or ["no captions"]
        if len(own) > MOST_CAPTIONS:
            told.append(f"and {len(own) - MOST_CAPTIONS} more")
        lines += [f"\n{_picture(ingest, shard, image)} {text(image['source'] or image['key'])}\n"]
        lines += [f"- {line}" for line in told]
    return "\n".join(lines)


def text(value: str) -> str:
    """Strangers' words, so that they stay words in Markdown."""
    line = " ".join(value.split())
    cut = line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"
    return cut.translate(_SIGNS)


def _images(ingest: Manifest, shard: str) -> list[dict[str, Any]]:
    """A few images, from all over the shard."""
    columns = ["key", "source", "image_id", "offset", "size", "status"]
    usable = [row for row in shard_images(ingest, shard, columns).to_pylist() if row["status"] == "ok"]
    return usable[:: max(1, len(usable) // IMAGES)][:IMAGES]


def _captions(captions: Manifest, shard: str, ingest: Manifest) -> dict[str, list[dict[str, Any]]]:
    from captioning.store import shard_captions

    columns = ["caption_id", "image_id", "perspective", "granularity", "text", "status", "error"]
    by_image: dict[str, list[dict[str, Any]]] = {}
    table = shard_captions(captions, shard, columns, structured=False, ingest=ingest)
    for row in table.to_pylist():
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image


def _verdicts(curated: Manifest, shard: str) -> dict[str, dict[str, Any]]:
    return {row["caption_id"]: row for row in _rows(curated, shard)}


def _rows(curated: Manifest, shard: str) -> Iterator[dict[str, Any]]:
    columns = ["caption_id", "keep", "reason", "clean_text"]
    for part in curated.of_shard(shard):
        if part.name.startswith("verdicts/"):
            yield from curated.read(part, schemas.VERDICTS, columns).to_pylist()


def _told(caption: Mapping[str, Any], verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    label = f"**{text(caption['perspective'].replace('_', ' '))}** {text(caption['granularity'])}:"
    if caption["status"] != "ok":
        return f"{label} failed: {text(caption['error'] or 'no reason is known')}"
    verdict = verdicts.get(caption["caption_id"])
    if verdict is None:
        return f"{label} {text(caption['text'])}"
    if not verdict["keep"]:
        return f"{label} ~~{text(caption['text'])}~~ ({text(verdict['reason'].replace('_', ' '))})"
    return f"{label} {text(verdict['clean_text'] or caption['text'])}"


def _picture(ingest: Manifest, shard: str, image: Mapping[str, Any]) -> str:
    from pipeline.thumbnails import thumbnail

    reader = ShardReader(shard_uris(ingest))
    try:
        data = reader.read(shard, image["offset"], image["size"], image["image_id"])
    except HolismError as problem:  # the samples are no reason for a stage to fail
        return text(str(problem))
    return f"![]({thumbnail(data)})"
