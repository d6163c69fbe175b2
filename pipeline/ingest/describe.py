"""What came out of ingest, in lines."""

from __future__ import annotations

from pipeline.ingest.names import HIDDEN
from pipeline.manifest import Manifest
from pipeline.summary import counted, shares


def describe(manifest: Manifest) -> list[str]:
    """Images, those that are the same picture and those with alt text; what could not be used, and why."""
    counts = manifest.counts
    images, errors = counts["images"], counts["errors"]
    line = f"{counted(images, 'image')} in {counted(counts['shards'], 'shard')}"
    if counts["distinct_images"] < images:
        line += f", {counts['distinct_images']:,} of them distinct"
    if "with_alt_text" in counts:
        line += f", {counts['with_alt_text']:,} with alt text"
    if left_out := sum(count for reason, count in counts.get("left_out", {}).items() if reason != HIDDEN):
        line += f"; {left_out:,} left out"
    if unusable := counts.get("unusable_tars"):
        line += f"; {counted(unusable, 'tar')} not usable"
    return [line, f"failed: {shares(counts['reasons'], images + errors)}"] if errors else [line]
