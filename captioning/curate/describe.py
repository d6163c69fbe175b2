"""What came out of curation, in lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.manifest import Manifest
from pipeline.summary import counted, number, share, shares, words


def describe(manifest: Manifest) -> list[str]:
    """What is kept, what was dropped and why, and what regeneration rounds brought."""
    counts = manifest.counts
    captions, kept, rows = counts["captions"], counts["kept"], counts["images"]
    images = counts.get("distinct_images", rows)
    each = counted(images, "image") if images == rows else f"{counted(rows, 'row')} of {counted(images, 'image')}"
    of_all = f"kept {kept:,} of {counted(captions, 'caption')}{share(kept, captions)}"
    lines = [f"{of_all}, {kept / max(1, rows):.1f} for each of {each}"]
    if counts["dropped"]:
        reasons = {words(reason): count for reason, count in counts["reasons"].items()}
        lines.append(f"dropped: {shares(reasons, captions)}")
    changed = [f"{counted(counts[name], noun)} {done}" for name, (noun, done) in _CHANGED.items() if counts.get(name)]
    if changed:
        lines.append(", ".join(changed))
    if "alt_texts" in counts:
        lines.append(_alt_texts(counts))
    if counts.get("mean_similarity") is not None:
        lines.append(f"mean similarity of an image's captions {number(counts['mean_similarity'])}")
    for number_, gained in enumerate(counts.get("rounds", ()), 1):
        lines.append(
            f"regeneration round {number_}: {counted(gained['images'], 'image')} asked again, captions "
            f"{gained['captions_before']:,} → {gained['captions_after']:,}, mean similarity "
            f"{_or_none(gained['similarity_before'])} → {_or_none(gained['similarity_after'])}"
        )
    return lines


def _alt_texts(counts: Mapping[str, Any]) -> str:
    alt_texts, kept, cleaned = (counts[name] for name in ("alt_texts", "alt_texts_kept", "alt_texts_cleaned"))
    line = f"kept {kept:,} of {counted(alt_texts, 'alt text')}{share(kept, alt_texts)}"
    line += f", {cleaned:,} of them cleaned" if cleaned else ""
    reasons = {words(reason): count for reason, count in counts["alt_text_reasons"].items()}
    return f"{line}; dropped: {shares(reasons, alt_texts)}" if reasons else line


_CHANGED = {"cleaned": ("caption", "cleaned"), "sub_captions": ("sub-caption", "added")}


def _or_none(value: float | None) -> str:
    return "none" if value is None else number(value)
