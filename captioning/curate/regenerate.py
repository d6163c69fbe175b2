"""Regeneration rounds: images whose captions are too few or too alike are sent back to the caption stage.

The request is additive: the new captions stand beside the old ones in the store, and all of them are judged together.
So a round can only add to what an image has to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from captioning.curate.config import RegenerateConfig
from captioning.rounds import ImageList, Round
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.storage import Location

if TYPE_CHECKING:
    from captioning.curate.steps.curation import Curated

CaptionAgain = Callable[[Round, bool], Manifest]  # the bool: also ask again what failed
SERVICE = "caption_again"  # its name among what the stage is handed


@dataclass(frozen=True)
class KeptCaptions:
    """What an image has: kept captions, and how alike they are on average (None: fewer than two)."""

    captions: int
    similarity: float | None

    def too_little(self, config: RegenerateConfig) -> bool:
        """Whether this is below the floor."""
        alike = self.similarity is not None and self.similarity > config.max_similarity
        return alike or self.captions < config.min_captions


def request(
    config: RegenerateConfig, number: int, curated: Curated, captions: Location
) -> tuple[Round | None, dict[str, KeptCaptions]]:
    """The next round, or None if no image needs one, and what the images of it have now by image id.

    `captions` is the caption store, where the list of images is kept.
    """
    wanting = {image: kept for image, kept in _kept_captions(curated) if kept.too_little(config)}
    if not wanting:
        return None, {}
    temperature = config.temperature + config.temperature_step * (number - 1)
    return Round(number, ImageList.write(captions, list(wanting)), temperature), wanting


def gained(asked: Round, before: Mapping[str, KeptCaptions], curated: Curated) -> dict[str, Any]:
    """What a round changed for the images that were asked again: figures for the report."""
    after = {image: kept for image, kept in _kept_captions(curated) if image in before}
    return {
        "round": asked.number,
        "temperature": round(asked.temperature, 4),
        "images": len(before),
        "captions_before": sum(kept.captions for kept in before.values()),
        "captions_after": sum(kept.captions for kept in after.values()),
        "similarity_before": _mean(before),
        "similarity_after": _mean(after),
    }


def new_warnings(asked: Round, manifest: Manifest, known: Sequence[str]) -> list[str]:
    """What a round warns of, beside what the caption stage has said already."""
    return [f"round {asked.number}: {warning}" for warning in manifest.warnings if warning not in known]


def service(services: Mapping[str, Any]) -> CaptionAgain:
    """What asks again, as it was handed in. Raises `ConfigError` where there is none."""
    if SERVICE not in services:
        raise ConfigError(
            "curate.regenerate.rounds is set, but this run has no caption stage to ask again; run it by "
            "holism curate CONFIG, or set curate.regenerate.rounds=0"
        )
    again: CaptionAgain = services[SERVICE]
    return again


def _kept_captions(curated: Curated) -> Iterator[tuple[str, KeptCaptions]]:
    """Every image's, from its bundle. A picture that occurs twice counts as its first bundle does."""
    seen: set[str] = set()
    for table in curated.bundles(["image_id", "captions", "mean_similarity"]):
        columns = (table[name].to_pylist() for name in ("image_id", "captions", "mean_similarity"))
        for image, captions, similarity in zip(*columns, strict=True):
            if image not in seen:
                seen.add(image)
                yield image, KeptCaptions(sum(caption["source"] == "caption" for caption in captions), similarity)


def _mean(images: Mapping[str, KeptCaptions]) -> float | None:
    values = [kept.similarity for kept in images.values() if kept.similarity is not None]
    return round(sum(values) / len(values), 4) if values else None
