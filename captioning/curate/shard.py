"""Curation of one shard: tables in, tables and counts out; nothing here touches a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from captioning.curate.bundles import make_bundles
from captioning.curate.config import CurateConfig
from captioning.curate.draft import IDENTITY, Draft, Gadget, GadgetReport, run_gadgets
from captioning.curate.gadgets.clean import Clean
from captioning.curate.gadgets.duplicates import Duplicates
from captioning.curate.gadgets.ending import Ending
from captioning.curate.gadgets.length import Length
from captioning.curate.gadgets.reject import Reject
from captioning.curate.gadgets.select import Select
from captioning.curate.phrases import load_phrases
from pipeline import schemas
from pipeline.errors import StoreError


@dataclass(frozen=True)
class CuratedShard:
    """Tables `verdicts` and `bundles` of a shard, and what was counted on the way."""

    verdicts: pa.Table
    bundles: pa.Table
    counts: Mapping[str, Any]


def make_gadgets(config: CurateConfig) -> tuple[Gadget, ...]:
    """The gadgets in the order they are applied: texts first, then images as a whole."""
    phrases = load_phrases(config.phrases)
    return (
        Clean(config.clean, phrases),
        Reject(config.reject, phrases),
        Ending(config.ending, phrases),
        Length(config.length),
        Duplicates(config.duplicates, coverage=config.coverage),
        Select(config.select, coverage=config.coverage),
    )


def curate_shard(
    captions: pa.Table, images: pa.Table, config: CurateConfig, curation: str, count_tokens: Callable[[str], int]
) -> CuratedShard:
    """Judge the captions of one shard and bundle them."""
    gadgets = make_gadgets(config)
    draft = make_draft(captions, gadgets, config.ngram)
    reports = run_gadgets(draft, gadgets)
    bundles = make_bundles(images, draft, count_tokens)
    shard = images["shard"][0].as_py() if len(images) else None
    return CuratedShard(_verdicts(draft, shard, curation), bundles, _counts(draft, bundles, reports))


def make_draft(captions: pa.Table, gadgets: Sequence[Gadget], ngram: int) -> Draft:
    """A draft of the columns that the gadgets and the bundles read."""
    needed = [*IDENTITY, "text", "perspective", "granularity", "level"]
    names = list(dict.fromkeys([*needed, *(name for gadget in gadgets for name in gadget.reads)]))
    if lacking := [name for name in names if name not in captions.column_names]:
        raise StoreError(f"the captions table lacks the columns {lacking} that curation reads")
    return Draft({name: captions[name].to_pylist() for name in names}, ngram=ngram)


def _verdicts(draft: Draft, shard: str | None, curation: str) -> pa.Table:
    rows = [
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


def _counts(draft: Draft, bundles: pa.Table, reports: Mapping[str, GadgetReport]) -> dict[str, Any]:
    """Figures that add up over shards; flat mappings are tables by name."""
    kept = [verdict is None for verdict in draft.verdicts]
    perspectives = draft.columns["perspective"]
    sources = [[caption["source"] for caption in captions] for captions in bundles["captions"].to_pylist()]
    similarity = [value for value in bundles["mean_similarity"].to_pylist() if value is not None]
    return {
        "captions": len(draft),
        "kept": sum(kept),
        "dropped": len(draft) - sum(kept),
        "cleaned": sum(text != (raw or "") for text, raw in zip(draft.texts, draft.columns["text"], strict=True)),
        "images": len(bundles),
        "images_without_captions": sum("caption" not in found for found in sources),
        "images_with_nothing": sum(not found for found in sources),
        "similarity_sum": sum(similarity),
        "similarity_images": len(similarity),
        "reasons": dict(Counter(str(verdict[1]) for verdict in draft.verdicts if verdict)),
        "kept_by_perspective": dict(Counter(p for p, keep in zip(perspectives, kept, strict=True) if keep)),
        "dropped_by_perspective": dict(Counter(p for p, keep in zip(perspectives, kept, strict=True) if not keep)),
        "seen_by_gadget": {name: report.seen for name, report in reports.items()},
        "dropped_by_gadget": {name: sum(report.dropped.values()) for name, report in reports.items()},
        "changed_by_gadget": {name: report.changed for name, report in reports.items()},
        "seconds_by_gadget": {name: round(report.seconds, 4) for name, report in reports.items()},
    }
