"""What the steps of curation do to one shard. Each is plain data with a call, so that it can be sent anywhere.

texts     raw captions → the verdicts and clean texts of the text gadgets, and counts of near-duplicates
verdicts  these, and what is known of the corpus → the verdicts of all gadgets, and the bundles
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from captioning.curate import counts
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.draft import IDENTITY, Draft, run_gadgets
from captioning.curate.gadgets import order
from captioning.curate.source import Source
from captioning.curate.steps import Parts, part_name
from pipeline import schemas
from pipeline.commits import CommitLog
from pipeline.errors import StoreError
from pipeline.storage import Location

ALWAYS = (*IDENTITY, "text", "perspective", "granularity", "level")  # columns that bundles and counts need


@dataclass(frozen=True)
class Texts:
    """The text gadgets over one shard, and what is counted of the cleaned texts."""

    source: Source
    config: CurateConfig

    kinds = ("texts", NearDuplicates.name)

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Judge and clean; commit the verdicts so far, and the counts."""
        started = time.monotonic()
        gadgets = order.text_gadgets(self.config)
        draft = make_draft(self.source.captions_of(shard), order.columns(gadgets), self.config.ngram)
        reports = run_gadgets(draft, gadgets)
        statistic = NearDuplicates(self.config.boilerplate)
        found = statistic.of_shard(draft)
        detail = {"shard": shard}
        counted = log.commit(
            part_name(statistic.name, shard, input_digest), schemas.parquet(found), rows=len(found), detail=detail
        )
        verdicts = verdicts_of(draft, shard, log.folder.name)
        texts = log.commit(
            part_name("texts", shard, input_digest),
            schemas.encode(verdicts, schemas.VERDICTS),
            rows=len(verdicts),
            seconds=time.monotonic() - started,
            detail=detail | {"counts": counts.of_gadgets(reports)},
        )
        return {"texts": texts, statistic.name: counted}


@dataclass(frozen=True)
class Verdicts:
    """The gadgets that need more than a text, over one shard, and its bundles.

    `texts` says where each shard's part of that step lies, `crowded` is what `NearDuplicates` merged to.
    """

    source: Source
    config: CurateConfig
    texts: Mapping[str, Location]
    crowded: Mapping[int, int]

    kinds = ("verdicts", "bundles")

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Go on where the text gadgets ended; commit verdicts and bundles."""
        from captioning.curate.bundles import TOKENIZER, clip_token_counter, make_bundles

        started = time.monotonic()
        gadgets = order.image_gadgets(self.config, self.crowded)
        draft = make_draft(self.source.captions_of(shard), order.columns(gadgets), self.config.ngram)
        resume(draft, schemas.read(self.texts[shard], schemas.VERDICTS))
        reports = run_gadgets(draft, gadgets)
        bundles = make_bundles(self.source.images_of(shard), draft, clip_token_counter())
        verdicts = verdicts_of(draft, shard, log.folder.name)
        detail = {"shard": shard}
        first = log.commit(
            part_name("verdicts", shard, input_digest),
            schemas.encode(verdicts, schemas.VERDICTS),
            rows=len(verdicts),
            detail=detail,
        )
        second = log.commit(
            part_name("bundles", shard, input_digest),
            schemas.encode(bundles, schemas.BUNDLES, metadata={"holism.tokenizer": TOKENIZER}),
            rows=len(bundles),
            seconds=time.monotonic() - started,
            detail=detail | {"counts": counts.of_shard(draft, bundles) | counts.of_gadgets(reports)},
        )
        return {"verdicts": first, "bundles": second}


def make_draft(captions: pa.Table, columns: Sequence[str], ngram: int) -> Draft:
    """A draft with the columns that gadgets and bundles read."""
    names = list(dict.fromkeys([*ALWAYS, *columns]))
    if lacking := [name for name in names if name not in captions.column_names]:
        raise StoreError(f"the captions table lacks the columns {lacking} that curation reads")
    return Draft({name: captions[name].to_pylist() for name in names}, ngram=ngram)


def resume(draft: Draft, verdicts: pa.Table) -> None:
    """Put a fresh draft where an earlier step left it."""
    draft.resume(*(verdicts[name].to_pylist() for name in ("caption_id", "gadget", "reason", "scores", "clean_text")))


def verdicts_of(draft: Draft, shard: str, curation: str) -> pa.Table:
    """What has been decided about each row."""
    rows: list[dict[str, Any]] = [
        {
            "caption_id": draft.columns["caption_id"][row],
            "shard": shard,
            "key": draft.columns["key"][row],
            "keep": verdict is None,
            "gadget": verdict[0] if verdict else None,
            "reason": str(verdict[1]) if verdict else None,
            "scores": list(draft.scores[row].items()),
            "clean_text": draft.texts[row] if draft.texts[row] != (draft.columns["text"][row] or "") else None,
            "curation": curation,
        }
        for row, verdict in enumerate(draft.verdicts)
    ]
    return schemas.table(schemas.VERDICTS, rows)
