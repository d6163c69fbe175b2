"""What came out of curation, in lines."""

from __future__ import annotations

from pipeline.manifest import Manifest
from pipeline.summary import counted, number, share, shares, words


def describe(manifest: Manifest) -> list[str]:
    """What is kept, what was dropped and why, and what regeneration rounds brought."""
    counts = manifest.counts
    captions, kept, images = counts["captions"], counts["kept"], counts["images"]
    of_all = f"kept {kept:,} of {counted(captions, 'caption')}{share(kept, captions)}"
    lines = [f"{of_all}, {kept / max(1, images):.1f} for each of {counted(images, 'image')}"]
    if counts["dropped"]:
        reasons = {words(reason): count for reason, count in counts["reasons"].items()}
        lines.append(f"dropped: {shares(reasons, captions)}")
    changed = [f"{counts[name]:,} {what}" for name, what in _CHANGED.items() if counts.get(name)]
    if changed:
        lines.append(", ".join(changed))
    if counts.get("mean_similarity") is not None:
        lines.append(f"mean similarity of an image's captions {number(counts['mean_similarity'])}")
    for number_, gained in enumerate(counts.get("rounds", ()), 1):
        lines.append(
            f"regeneration round {number_}: {counted(gained['images'], 'image')} asked again, captions "
            f"{gained['captions_before']:,} → {gained['captions_after']:,}, mean similarity "
            f"{_or_none(gained['similarity_before'])} → {_or_none(gained['similarity_after'])}"
        )
    return lines


_CHANGED = {"cleaned": "captions cleaned", "sub_captions": "sub-captions added"}


def _or_none(value: float | None) -> str:
    return "none" if value is None else number(value)
