"""Slots: which captions a sample has, in which order. Light, as settings are."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.config import Section

DEFAULT_SLOTS = ("alt_text", "detail", "sentence", "phrase", "nouns", "main_object", "background", "style")
# `sentence` and `phrase` are one perspective at two granularities; every other name is its own perspective.
_SUMMARIES = {"sentence": "sentence", "phrase": "phrase"}


class Slot(Section):
    """One of the M captions of a sample: which captions of a bundle may fill it."""

    name: str = Field(description="what the slot and its branch are called")
    perspective: str = Field(description="the perspective of the captions that fill it")
    granularity: str | None = Field(None, description="the granularity of the captions that fill it; empty: any")

    def short(self) -> Any:
        """Its name, where that says all."""
        return self.name if named_slot(self.name) == self else super().short()


def named_slot(value: Any) -> Any:
    """A slot may be written by its name alone."""
    if not isinstance(value, str):
        return value
    if value in _SUMMARIES:
        return Slot(name=value, perspective="summary", granularity=_SUMMARIES[value])
    return Slot(name=value, perspective=value)


SlotField = Annotated[Slot, BeforeValidator(named_slot)]
