"""Settings of curation: one section per gadget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Section

Granularity = Literal["word", "phrase", "sentence", "paragraph"]


class CleanConfig(Section):
    """What `clean` takes off a text."""

    openers: bool = Field(default=True, description="strip boilerplate such as 'The image shows'")
    quotes: bool = Field(default=True, description="strip quotation marks and emphasis around the whole text")


class RejectConfig(Section):
    """What `reject` takes for a loop; refusals, talk about itself, errors and empty texts always go."""

    max_repetition: float = Field(default=0.4, ge=0, le=1, description="share of word trigrams that came before")
    max_run: int = Field(default=2, ge=1, description="how often one word may stand in a row")


class EndingConfig(Section):
    """What `ending` does with a sentence that was cut off."""

    repair: bool = Field(default=True, description="cut back to the last whole sentence; false: drop the caption")


class WordLimits(Section):
    """Fewest and most words of a caption."""

    min: int = Field(default=1, ge=0)
    max: int = Field(default=10_000, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> WordLimits:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class LengthConfig(Section):
    """Limits of length for each granularity, in words."""

    word: WordLimits = WordLimits(min=1, max=30)
    phrase: WordLimits = WordLimits(min=1, max=25)
    sentence: WordLimits = WordLimits(min=2, max=70)
    paragraph: WordLimits = WordLimits(min=6, max=400)

    def limits(self) -> Mapping[str, WordLimits]:
        """The limits by granularity."""
        return {"word": self.word, "phrase": self.phrase, "sentence": self.sentence, "paragraph": self.paragraph}


class DuplicatesConfig(Section):
    """When two captions of one image count as the same."""

    max_similarity: float = Field(
        default=0.9, ge=0, le=1, description="near-duplicates are above; the same words always count as a duplicate"
    )


class SelectConfig(Section):
    """How many captions of an image are kept, and how different they have to be."""

    max_captions: int = Field(default=12, ge=1, description="per image; coverage may need more")
    max_similarity: float = Field(default=0.8, ge=0, le=1, description="to the nearest selected caption")


class CurateConfig(Section):
    """Settings of the curate stage."""

    ngram: int = Field(default=2, ge=1, le=5, description="similarity is over word n-grams up to this order")
    coverage: bool = Field(
        default=True,
        description="never drop the last acceptable caption of a (perspective, granularity) for being similar; "
        "the exact words of another caption are dropped all the same",
    )
    phrases: str | None = Field(default=None, description="a YAML file of your own in place of curate/phrases.yaml")
    clean: CleanConfig = Field(default_factory=CleanConfig)
    reject: RejectConfig = Field(default_factory=RejectConfig)
    ending: EndingConfig = Field(default_factory=EndingConfig)
    length: LengthConfig = Field(default_factory=LengthConfig)
    duplicates: DuplicatesConfig = Field(default_factory=DuplicatesConfig)
    select: SelectConfig = Field(default_factory=SelectConfig)
