"""What a report on diversity shows of one set of captions, gathered from its manifests shard by shard."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioning.curate.diversity import types
from captioning.curate.diversity.figures import Diversity, DiversityFigures
from captioning.curate.draft import Draft
from captioning.store import shard_captions
from pipeline import schemas
from pipeline.ingest import shard_names, shard_uris
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.thumbnails import thumbnail

IMAGE = ("shard", "key", "image_id")
COLUMNS = (*IMAGE, "caption_id", "text", "perspective", "granularity")


@dataclass(frozen=True)
class ExampleImage:
    """One image with its kept captions, (perspective, granularity, text) each."""

    image_id: str
    picture: str  # a data URI
    captions: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class CaptionSet:
    """The captions of one workspace: as they were written, as curation left them, and why the others went."""

    name: str
    models: tuple[str, ...]
    written: DiversityFigures
    kept: DiversityFigures
    dropped: Mapping[tuple[str, str], int]  # (gadget, reason) → captions
    judged: int  # captions with a verdict
    rounds: Sequence[Mapping[str, Any]]
    examples: tuple[ExampleImage, ...]


def collect(
    name: str, inputs: Mapping[str, Manifest], curated: Manifest, statistic: Diversity, *, ngram: int, examples: int
) -> CaptionSet:
    """Read one set. `inputs` are the manifests of ingest and caption, `curated` is that of curate."""
    ingest, captions = inputs["ingest"], inputs["caption"]
    dropped: Counter[tuple[str, str]] = Counter()
    judged = 0
    for part in curated.select("verdicts/"):
        table = curated.read(part, schemas.VERDICTS, ["gadget", "reason"])
        judged += len(table)
        groups = table.filter(pc.is_valid(table["gadget"])).to_pylist()
        dropped.update((row["gadget"], row["reason"]) for row in groups)
    shards = shard_names(ingest)
    progress = Progress(f"diversity of {name}", 2 * len(shards), "shards")

    def figures(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            yield statistic.of_shard(_draft(table, ngram))
            progress.update()

    written, kept = statistic.merge(figures(_written(captions, ingest))), statistic.merge(figures(_kept(curated)))
    progress.close()
    return CaptionSet(
        name=name,
        models=tuple(sorted({str(cell.get("model", "")) for cell in captions.detail["cells"].values()} - {""})),
        written=written,
        kept=kept,
        dropped=dict(dropped),
        judged=judged,
        rounds=curated.counts.get("rounds", ()),
        examples=_examples(ingest, curated, examples),
    )


def _draft(table: pa.Table, ngram: int) -> Draft:
    return Draft({name: table[name].to_pylist() for name in COLUMNS}, ngram=ngram)


def _written(captions: Manifest, ingest: Manifest) -> Iterator[pa.Table]:
    """The captions that came out well, before curation; regeneration rounds are not among them."""
    for shard in shard_names(ingest):
        table = shard_captions(captions, shard, [*COLUMNS, "status"], structured=False, ingest=ingest)
        yield table.filter(pc.equal(table["status"].cast(pa.string()), "ok"))


def _kept(curated: Manifest) -> Iterator[pa.Table]:
    """The captions in bundles, without alt texts and parts of captions."""
    for part in curated.select("bundles/"):
        bundles = curated.read(part, schemas.BUNDLES, [*IMAGE, "captions"])
        parents = pc.list_parent_indices(bundles["captions"])
        entries = pc.list_flatten(bundles["captions"])
        columns = {name: pc.struct_field(entries, name) for name in COLUMNS if name not in IMAGE}
        columns |= {name: bundles[name].take(parents) for name in IMAGE}
        yield pa.table(columns).filter(pc.equal(pc.struct_field(entries, "source"), "caption"))


def _examples(ingest: Manifest, curated: Manifest, count: int) -> tuple[ExampleImage, ...]:
    """The images with the smallest hashes of their content: the same ones for every set that has them."""
    nearest: list[tuple[int, dict[str, Any]]] = []
    for part in curated.select("bundles/"):
        bundles = curated.read(part, schemas.BUNDLES, [*IMAGE, "offset", "size"])
        ranked = ((types.rank(row["image_id"]), row | {"part": part}) for row in bundles.to_pylist())
        nearest = heapq.nsmallest(count, [*nearest, *ranked], key=lambda ranked: ranked[0])
    reader = ShardReader(shard_uris(ingest))
    return tuple(
        ExampleImage(
            row["image_id"],
            thumbnail(reader.read(row["shard"], row["offset"], row["size"], row["image_id"])),
            _captions_of(curated, row),
        )
        for _, row in nearest
    )


def _captions_of(curated: Manifest, row: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    bundles = curated.read(row["part"], schemas.BUNDLES, ["key", "captions"])
    (entries,) = bundles.filter(pc.equal(bundles["key"], row["key"]))["captions"].to_pylist()
    return tuple(
        (entry["perspective"], entry["granularity"], entry["text"])
        for entry in entries
        if entry["source"] == "caption"
    )
