"""Settings of curation: what holds for all gadgets, a section for each gadget, and what is done with the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, create_model, field_validator, model_validator

from captioning.curate.gadget import Gadget
from captioning.curate.gadgets import GADGETS, judging
from pipeline.cluster.config import StageRayConfig
from pipeline.config import Section, added, operational

VERSION = 5  # of what the stage makes, raised by hand when results change


class SubCaptionsConfig(Section):
    """Parts of long captions as captions of their own (FLAIR, PAPER 5)."""

    enabled: bool = Field(False, description="whether parts of long captions are added to the bundles")
    per_caption: int = Field(default=4, ge=1, description="most parts of one caption")
    max_sentences: int = Field(
        default=3, ge=1, description="most sentences of a part; half of the parts are consecutive sentences"
    )


class RegenerateConfig(Section):
    """Images with too little diversity are asked again: in other words, at a higher temperature.

    An image has too little if its kept captions are on average more alike than `max_similarity`, or fewer than
    `min_captions`.
    """

    moved: ClassVar = {"warmer": "curate.regenerate.temperature_step"}

    rounds: int = Field(default=0, ge=0, le=10, description="most regeneration rounds; 0: none")
    max_similarity: float = Field(
        default=0.5, ge=0, le=1, description="an image is asked again if its kept captions are on average more alike"
    )
    min_captions: int = Field(default=2, ge=0, description="an image is asked again if it keeps fewer captions")
    temperature: float = Field(default=1.0, gt=0, description="sampling temperature of the first regeneration round")
    temperature_step: float = Field(
        default=0.1, ge=0, description="what each further regeneration round adds to the temperature"
    )


class ImportedConfig(Section):
    """Imported captions (`caption.tables`): no model has written them for these prompts, so few gadgets judge them."""

    gadgets: tuple[str, ...] = Field(
        judging("imported"), description="gadgets that judge imported captions too; the others judge models' alone"
    )

    @field_validator("gadgets")
    @classmethod
    def _are_gadgets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _in_order(names, [gadget.name for gadget in GADGETS])


class AltTextConfig(Section):
    """Alt texts: as ingest read them, or judged by gadgets."""

    enabled: bool = added(False, description="whether alt texts are cleaned and filtered by gadgets")
    gadgets: tuple[str, ...] = added(
        judging("alt_text"), description="gadgets that judge alt texts, of those that judge texts"
    )

    @field_validator("gadgets")
    @classmethod
    def _judge_texts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _in_order(names, [gadget.name for gadget in GADGETS if gadget.judges == "texts"])


def _in_order(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of those that are known: how they are written changes nothing."""
    known, names = list(known), set(names)
    if unknown := sorted(names.difference(known)):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return tuple(name for name in known if name in names)


class CommonConfig(Section):
    """What holds for all gadgets."""

    ngram: int = Field(default=2, ge=1, le=5, description="longest word n-grams that lexical similarity compares")
    max_compared: int = Field(
        default=1_000,
        ge=1,
        description="most captions of one image that are compared with each other, which takes memory and time with "
        "the square of their number; further ones are dropped as too_many",
    )
    coverage: bool = Field(
        default=True,
        description="never drop the last acceptable caption of a (perspective, granularity) for being similar; "
        "the exact words of another caption are dropped all the same",
    )
    ray: StageRayConfig = operational(
        StageRayConfig(enabled=False), description="spread shards over the cores, or over a cluster"
    )
    phrases: str | None = Field(default=None, description="a YAML file of your own in place of phrases.yaml")
    imported: ImportedConfig = Field(default_factory=ImportedConfig)
    alt_text: AltTextConfig = added(AltTextConfig())


def with_sections(base: type[Section], gadgets: Iterable[type[Gadget]]) -> type[Section]:
    """The configuration with a section for each of these gadgets, by its name."""
    sections: dict[str, Any] = {
        gadget.name: (gadget.settings, Field(default_factory=gadget.settings)) for gadget in gadgets
    }
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **sections)


if TYPE_CHECKING:

    class GadgetsConfig(CommonConfig):
        """What the type checker is told: the section of any gadget is there by its name."""

        def __getattr__(self, name: str) -> Any: ...

else:
    GadgetsConfig = with_sections(CommonConfig, GADGETS)


class CurateConfig(GadgetsConfig):
    """Which captions are kept, and what training gets to see of an image."""

    regenerate: RegenerateConfig = Field(default_factory=RegenerateConfig)
    sub_captions: SubCaptionsConfig = Field(default_factory=SubCaptionsConfig)

    @model_validator(mode="after")
    def _has_what_selection_goes_by(self) -> CurateConfig:
        if self.select.quality == "ground" and self.ground.scorer is None:
            raise ValueError("select.quality is ground, which needs scores: name a model in ground.scorer")
        if self.select.quality != "uniform" and self.select.method == "max_min":
            raise ValueError(f"select.quality is {self.select.quality}, which max_min does not weigh: take mmr or dpp")
        return self

    @model_validator(mode="after")
    def _rounds_can_end(self) -> CurateConfig:
        floor, most = self.regenerate.min_captions, self.select.max_captions
        if self.regenerate.rounds and floor > most:
            raise ValueError(
                f"regenerate.min_captions is {floor}, but select.max_captions keeps no more than {most}: every image "
                "would be asked again"
            )
        return self


def unknown_perspectives(config: CurateConfig, perspectives: Iterable[str]) -> list[str]:
    """What to say of names that the captions do not have; the defaults name some that many corpora lack."""
    known = sorted(perspectives)
    return [
        f"curate.{setting} names {name!r}, which is no perspective of these captions ({', '.join(known)})"
        for setting, names in perspectives_beyond_defaults(config).items()
        for name in names
        if name not in known
    ]


def perspectives_beyond_defaults(config: CurateConfig) -> dict[str, tuple[str, ...]]:
    """The perspectives that a configuration names by itself, by setting."""
    defaults = _perspectives(type(config)())
    return {
        setting: tuple(name for name in names if name not in defaults[setting])
        for setting, names in _perspectives(config).items()
    }


def _perspectives(config: CurateConfig) -> dict[str, tuple[str, ...]]:
    """The perspectives that each setting of a gadget names."""
    perspectives: dict[str, tuple[str, ...]] = {}
    for gadget in GADGETS:
        for name, field in gadget.settings.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, Mapping) and extra.get("perspectives"):
                value = getattr(getattr(config, gadget.name), name)
                perspectives[f"{gadget.name}.{name}"] = (value,) if isinstance(value, str) else tuple(value)
    return perspectives
