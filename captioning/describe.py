"""What came out of the caption stage, in lines."""

from __future__ import annotations

from pipeline.manifest import Manifest
from pipeline.summary import counted, number, share


def describe(manifest: Manifest) -> list[str]:
    """Captions, how many of them are new and how fast they came; failures and tokens."""
    counts = manifest.counts
    captions, errors, new = counts["captions"], counts["errors"], counts["new_captions"]
    speed = _speed(counts.get("rate_by_model", {}))
    lines = [f"{counted(captions, 'caption')}, {_new(new, captions + errors)}{speed}"]
    if errors:
        lines.append(f"failed: {errors:,}{share(errors, captions + errors)}, {counts['quarantined']:,} quarantined")
    if counts["output_tokens"]:
        lines.append(
            f"tokens: {counts['output_tokens']:,} written, {counts['prompt_tokens']:,} read, "
            f"{100 * counts['cached_share']:.0f} % of these from the cache"
        )
    return lines


def _new(new: int, asked: int) -> str:
    return "all new" if new >= asked else f"{new:,} of them new" if new else "none new"


def _speed(rates: dict[str, float]) -> str:
    if not rates:
        return ""
    if len(rates) == 1:
        return f", {number(next(iter(rates.values())))} captions/s"
    return "; " + ", ".join(f"{model} {number(rate)} captions/s" for model, rate in rates.items())
