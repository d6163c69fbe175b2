"""Figures of curation that add up over shards, and what is said of their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from captioning.curate.gadgets.duplicates import TOO_MANY
from pipeline.errors import InputError
from pipeline.summary import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from captioning.curate.draft import Draft
    from captioning.curate.gadget import GadgetReport

NAMED = 5  # shards or reasons named in a message


def of_gadgets(reports: Mapping[str, GadgetReport]) -> dict[str, dict[str, Any]]:
    """What each gadget saw, dropped and changed, and its seconds."""
    return {
        "seen_by_gadget": {name: report.seen for name, report in reports.items()},
        "dropped_by_gadget": {name: sum(report.dropped.values()) for name, report in reports.items()},
        "changed_by_gadget": {name: report.changed for name, report in reports.items()},
        "seconds_by_gadget": {name: round(report.seconds, 4) for name, report in reports.items()},
    }


def of_shard(draft: Draft, bundles: pa.Table) -> dict[str, Any]:
    """What became of a shard's captions and images; flat mappings are tables by name."""
    kept = [verdict is None for verdict in draft.verdicts]
    perspectives = draft.columns["perspective"]
    sources = [[caption["source"] for caption in captions] for captions in bundles["captions"].to_pylist()]
    similarity = [value for value in bundles["mean_similarity"].to_pylist() if value is not None]
    return {
        "captions": len(draft),
        "kept": sum(kept),
        "dropped": len(draft) - sum(kept),
        "cleaned": sum(text != (raw or "") for text, raw in zip(draft.texts, draft.columns["text"], strict=True)),
        "sub_captions": sum(texts.count("sub") for texts in sources),
        "images": len(bundles),
        "images_without_captions": sum("caption" not in texts for texts in sources),
        "images_with_nothing": sum(not texts for texts in sources),
        "similarity_sum": sum(similarity),
        "similarity_images": len(similarity),
        "reasons": dict(Counter(str(verdict[1]) for verdict in draft.verdicts if verdict)),
        "kept_by_perspective": dict(Counter(p for p, keep in zip(perspectives, kept, strict=True) if keep)),
        "dropped_by_perspective": dict(Counter(p for p, keep in zip(perspectives, kept, strict=True) if not keep)),
    }


def total(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the counts of shards; tables are sorted by their largest figure."""
    figures: dict[str, Any] = {}
    for counts in shards:
        _add(figures, counts)
    similarity, images = figures.pop("similarity_sum", 0.0), figures.pop("similarity_images", 0)
    figures["seconds_by_gadget"] = {
        name: round(spent, 3) for name, spent in figures.get("seconds_by_gadget", {}).items()
    }
    figures["mean_similarity"] = round(similarity / images, 4) if images else None
    for name, value in figures.items():
        if isinstance(value, dict) and not name.endswith("_by_gadget"):  # gadgets stay in the order they ran
            figures[name] = dict(sorted(value.items(), key=lambda item: (-item[1], item[0])))
    return figures


def _add(into: dict[str, Any], counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if isinstance(value, Mapping):
            _add(into.setdefault(name, {}), value)
        else:
            into[name] = into.get(name, 0) + value


def check_not_empty(counts: Mapping[str, Any]) -> None:
    """Training on nothing would only fail later and less clearly."""
    if not counts["captions"]:
        raise InputError(
            f"there is nothing to curate: none of {counted(counts['images'], 'readable image')} has a caption; "
            "look at what the caption stage reports (holism status CONFIG)"
        )
    if not counts["kept"]:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in list(counts["reasons"].items())[:NAMED])
        raise InputError(
            f"curation kept none of {counted(counts['captions'], 'caption')} (dropped as {reasons}); if these are not "
            "errors of the engine, loosen the limits under 'curate' in the configuration"
        )


def find_warnings(counts: Mapping[str, Any], silent: Sequence[str], shards: int) -> list[str]:
    """What a user should know although the stage went well. `silent` are the shards without any caption."""
    warnings = []
    if silent:
        names = ", ".join(silent[:NAMED]) + (", …" if len(silent) > NAMED else "")
        warnings.append(f"{counted(len(silent), 'shard has', 'shards have')} no caption (of {shards:,}): {names}")
    if beyond := counts["reasons"].get(TOO_MANY):
        warnings.append(
            f"{counted(beyond, 'caption was', 'captions were')} dropped as too_many: their images have more different "
            "captions than are compared with each other; curate.max_compared sets how many are"
        )
    if alone := counts["images_without_captions"]:
        warnings.append(
            f"{counted(alone, 'image keeps', 'images keep')} no caption (of {counts['images']:,}); "
            f"without alt text, and not in training: {counts['images_with_nothing']:,} of them"
        )
    return warnings
