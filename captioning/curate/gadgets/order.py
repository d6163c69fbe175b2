"""The gadgets in the order they are applied: texts one by one first, then each image's captions as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from captioning.curate.config import CurateConfig
from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.draft import Gadget
from captioning.curate.gadgets.boilerplate import Boilerplate
from captioning.curate.gadgets.clean import Clean
from captioning.curate.gadgets.duplicates import Duplicates
from captioning.curate.gadgets.ending import Ending
from captioning.curate.gadgets.language import Language
from captioning.curate.gadgets.length import Length
from captioning.curate.gadgets.off_topic import OffTopic
from captioning.curate.gadgets.reject import Reject
from captioning.curate.gadgets.select import Select
from captioning.curate.gadgets.unsafe import Unsafe
from captioning.curate.phrases import load_phrases


def text_gadgets(config: CurateConfig, openers: Sequence[str] = ()) -> tuple[Gadget, ...]:
    """What a caption can be judged by alone, or beside its image's other answers; `openers` are learnt ones."""
    phrases = load_phrases(config.phrases)
    return (
        Clean(config.clean, phrases, openers),
        Reject(config.reject, phrases),
        Ending(config.ending, phrases),
        Length(config.length),
        Language(config.language),
        Unsafe(config.unsafe),
        OffTopic(config.off_topic),
    )


def image_gadgets(config: CurateConfig, crowded: Mapping[int, int]) -> tuple[Gadget, ...]:
    """What needs the corpus, the picture, or the clean captions beside it."""
    return (
        Boilerplate(NearDuplicates(config.boilerplate), crowded),
        Duplicates(config.duplicates, coverage=config.coverage),
        Select(config.select, coverage=config.coverage),
    )


def columns(gadgets: Sequence[Gadget]) -> list[str]:
    """The columns of the captions table that these gadgets read."""
    return list(dict.fromkeys(name for gadget in gadgets for name in gadget.reads))


def all_gadgets(config: CurateConfig, crowded: Mapping[int, int] = MappingProxyType({})) -> tuple[Gadget, ...]:
    """All of them, for captions that are few enough to be judged in one go."""
    return (*text_gadgets(config), *image_gadgets(config, crowded))
