"""Alt texts: what bundles hold of them, and with `curate.alt_text` what gadgets of texts make of them.

An alt text belongs to a row of the images table: where a picture has several rows, each has its own. No caption is
compared with it, and it has no verdict in the table: what was dropped is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.gadget import Known, run_gadgets
from captioning.curate.gadgets import columns, make_gadgets, settings_of
from captioning.curate.gadgets.reject import EMPTY

if TYPE_CHECKING:
    from captioning.curate.config import CurateConfig

PERSPECTIVE = "alt_text"  # in bundles, and the name of its limits of length
COLUMNS: dict[str, str | None] = {
    "perspective": PERSPECTIVE,
    "granularity": PERSPECTIVE,
    "status": "ok",
    "finish_reason": None,
}


@dataclass(frozen=True)
class AltTexts:
    """The alt texts of a shard for bundles, by the key of the image's row, and `counts` where gadgets judged them."""

    kept: Mapping[str, str]
    counts: Mapping[str, Any] = field(default_factory=dict)


def alt_texts(images: pa.Table, config: CurateConfig, known: Known) -> AltTexts:
    """The alt texts of the readable images, in one line each, judged if that is configured."""
    rows = zip(*(images[name].to_pylist() for name in ("key", "alt_text", "status")), strict=True)
    texts = {key: " ".join(text.split()) for key, text, status in rows if text and status == "ok"}
    texts = {key: text for key, text in texts.items() if text}
    return _judged(texts, config, known) if config.alt_text.enabled else AltTexts(texts)


def settings(config: CurateConfig, known: Known) -> dict[str, Any]:
    """What decides about alt texts, as plain data; nothing where they are not judged."""
    if not config.alt_text.enabled:
        return {}
    names = config.alt_text.gadgets
    return {"alt_text": [names, settings_of("texts", config, names), known.openers, known.habits.digest]}


def _judged(texts: Mapping[str, str], config: CurateConfig, known: Known) -> AltTexts:
    keys = list(texts)
    gadgets = [gadget for gadget in make_gadgets("texts", config, known) if gadget.name in config.alt_text.gadgets]
    others = {name: [COLUMNS.get(name)] * len(keys) for name in (*COLUMNS, *columns(gadgets))}
    draft = Draft({**others, "key": keys, "caption_id": keys, "text": list(texts.values())}, ngram=config.ngram)
    run_gadgets(draft, gadgets)
    keys, raw = draft.columns["key"], draft.columns["text"]
    kept = {keys[row]: draft.texts[row] for row in draft.open_rows() if draft.texts[row]}
    reasons = Counter(verdict[1] for verdict in draft.verdicts if verdict)
    if emptied := len(keys) - len(kept) - reasons.total():
        reasons[EMPTY] += emptied
    return AltTexts(
        kept,
        {
            "alt_texts": len(keys),
            "alt_texts_kept": len(kept),
            "alt_texts_dropped": len(keys) - len(kept),
            "alt_texts_cleaned": sum(kept.get(key, text) != text for key, text in zip(keys, raw, strict=True)),
            "alt_text_reasons": dict(reasons),
        },
    )
