"""The caption store: what a piece of work is, and how a manifest's captions are read.

Captions are append-only and shared by all configurations. A part holds the rows of some cells for some images of one
shard; once published it stays as it is. Captions belong to images by image id: the shard and the key of a row say
where the image was when it was asked about. A row that failed and was asked again stays as well, and the newer counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioning import index
from captioning.asking.cells import short_hash
from captioning.index import QUARANTINED
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.errors import StoreError
from pipeline.identity import digest
from pipeline.ingest import IMAGES_FOLDER, shard_images
from pipeline.manifest import Manifest
from pipeline.storage import Location

TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
COUNTED = ("captions", "errors", "quarantined", *TOKENS)
IMAGES = "images"  # in a manifest's detail: the store of the images that its captions are read for, in the workspace
OF_A_ROW = ("caption_id", "image_id", "cell", "status", "created_at")  # what rows are found and told apart by


@dataclass(frozen=True)
class Shard:
    """References to one shard: its images part, its tar, and how many rows the part has."""

    name: str
    images: str  # URI of the images part
    digest: str
    tar: str
    rows: int
    errors: int  # images that ingest could not read: they get no captions


@dataclass(frozen=True)
class WorkItem:
    """Rows of a shard's images part, and the cells that are missing there. References only, never pixels.

    Of these cells each image is asked those that fall to its share. `sources` are parts that hold parents' answers of
    chains, or answers to the same questions that another configuration asked. `captions` is how many rows it makes.
    """

    shard: Shard
    rows: tuple[int, ...]
    cells: tuple[str, ...]
    captions: int
    sources: tuple[str, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether this is about one image."""
        return len(self.rows) == 1

    @property
    def part(self) -> str:
        """Name of the part that it becomes: the same whenever the same is asked."""
        identity = digest([self.shard.digest, self.rows, short_hash(self.cells), self.sources])
        return f"captions/{self.shard.name}/{self.rows[0]:08d}-{identity[:12]}.parquet"

    @property
    def note(self) -> str:
        """Name of the note of its attempts."""
        return self.part.removesuffix(".parquet")

    def narrow(self, row: int) -> WorkItem:
        """The same work for one row: a part of its own."""
        return replace(self, rows=(row,))


def shards(ingest: Manifest) -> list[Shard]:
    """The shards of an ingest manifest."""
    from pipeline.ingest import shard_uris

    tars = shard_uris(ingest)
    parts = {part.name.removeprefix("images/").removesuffix(".parquet"): part for part in ingest.select("images/")}
    return [
        Shard(name, str(ingest.location(part)), part.digest, tars[name], part.rows, part.errors)
        for name, part in sorted(parts.items())
    ]


def figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Counts by cell, kept in a part's record, so that totals need no reading of Parquet."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        count = counts.setdefault(row["cell"], dict.fromkeys(COUNTED, 0))
        count["captions" if row["status"] == "ok" else "errors"] += 1
        count["quarantined"] += (row["error"] or "").startswith(QUARANTINED)
        for name in TOKENS:
            count[name] += row[name] or 0
    return counts


def figures_of(part: Part, cells: Iterable[str]) -> dict[str, dict[str, int]]:
    """The counts of a part's rows, for the cells that are asked for."""
    return {cell: part.detail["figures"][cell] for cell in cells if cell in part.detail["figures"]}


def records(manifest: Manifest) -> list[Part]:
    """The parts of a manifest with all that is on record of them: by whom, when and how quickly they were made."""
    known = CommitLog(Location.of(manifest.store)).parts()
    return [known[part.name] for part in manifest.parts]


def shard_captions(
    manifest: Manifest,
    shard: str,
    columns: Sequence[str] | None = None,
    *,
    structured: bool = True,
    ingest: Manifest | None = None,
) -> pa.Table:
    """The captions that a manifest selects for the images of a shard, under the keys that the images have there.

    An append-only store holds rows of other cells and of other images beside them. A picture that has several keys has
    its captions under each. Error rows are included, and structured answers as a whole unless `structured` is false:
    their fields are captions of their own. Rows come in the order of the images; of one image, in that of the parts.
    `ingest` has the images; without it they are those that the manifest was made for.
    """
    names = list(columns) if columns else schemas.CAPTIONS.names
    cells = {cell for cell, about in manifest.detail["cells"].items() if structured or about["ends"] != "json"}
    images = _images(manifest, shard, ingest)
    reads = list(dict.fromkeys([*(name for name in names if name not in ("shard", "key")), *OF_A_ROW]))
    parts = [part for part in manifest.of_shard(shard) if part.name.startswith("captions/")]
    tables = [manifest.read(part, schemas.CAPTIONS, reads) for part in parts]
    if not tables:
        return schemas.table(schemas.CAPTIONS, []).select(names)
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    wanted = pc.and_(
        pc.is_in(table["cell"].cast(pa.string()), value_set=pa.array(sorted(cells), pa.string())),
        pc.is_in(table["image_id"], value_set=images["image_id"].combine_chunks()),
    )
    table = _newest(table.filter(wanted))
    row_R, image_R = _pairs(index.ids(table["image_id"]), index.ids(images["image_id"]))
    table = table.take(row_R)
    table = table.append_column(schemas.CAPTIONS.field("key"), images["key"].take(image_R))
    named = pa.repeat(pa.scalar(shard, pa.string()), len(table)).dictionary_encode()
    return table.append_column(schemas.CAPTIONS.field("shard"), named).select(names)


def _images(manifest: Manifest, shard: str, ingest: Manifest | None) -> pa.Table:
    """Keys and ids of the images of a shard that could be read."""
    columns = ["key", "image_id", "status"]
    if ingest is not None:
        images = shard_images(ingest, shard, columns)
        return images.filter(pc.is_valid(images["image_id"])).combine_chunks()
    folder, name = Location.of(manifest.store).parent / manifest.detail[IMAGES], f"{IMAGES_FOLDER}/{shard}.parquet"
    part = CommitLog(folder).get(name)
    if part is None:
        raise StoreError(
            f"{folder / name} is gone or cut; make it again: holism ingest CONFIG, then holism caption CONFIG "
            "--retry-failed"
        )
    images = schemas.read(folder / name, schemas.IMAGES, columns, recorded=(part.digest, "ingest"))
    return images.filter(pc.is_valid(images["image_id"])).combine_chunks()


def _newest(table: pa.Table) -> pa.Table:
    """The rows that count: no failure where there is an answer, and of what was asked twice the newer row."""
    cells = table["cell"].combine_chunks()
    number_R = np.unique(index.ids(table["image_id"]), return_inverse=True)[1]
    pair_R = number_R * max(1, len(cells.dictionary)) + cells.indices.to_numpy(zero_copy_only=False)
    ok_R = pc.equal(table["status"].cast(pa.string()), "ok").to_numpy(zero_copy_only=False)
    counts_R = ok_R | ~np.isin(pair_R, pair_R[ok_R])
    answer_R = pc.dictionary_encode(table["caption_id"]).combine_chunks().indices.to_numpy(zero_copy_only=False)
    same_R = np.stack([pair_R, np.where(ok_R, answer_R, -1)])  # an imported cell may say several things of an image
    when_R = pc.fill_null(table["created_at"].cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    order_R = np.lexsort((when_R, *same_R))
    last_R = np.ones(len(table), bool)
    last_R[order_R[:-1]] = (np.diff(same_R[:, order_R], axis=1) != 0).any(axis=0)
    return table if (counts_R & last_R).all() else table.filter(pa.array(counts_R & last_R))


def _pairs(caption_R: np.ndarray, image_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of the captions, row of the images) wherever the ids are the same, in the order of the images."""
    order_K = np.argsort(image_K, kind="stable")
    first_R = np.searchsorted(image_K[order_K], caption_R, "left")
    count_R = np.searchsorted(image_K[order_K], caption_R, "right") - first_R
    row_P = np.repeat(np.arange(len(caption_R)), count_R)
    within_P = np.arange(len(row_P)) - np.repeat(np.cumsum(count_R) - count_R, count_R)
    image_P = order_K[np.repeat(first_R, count_R) + within_P]
    by_image = np.argsort(image_P, kind="stable")
    return row_P[by_image], image_P[by_image]
