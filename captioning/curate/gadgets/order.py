"""The gadgets in the order they are applied: texts one by one first, then each image's captions as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from captioning.curate.config import CurateConfig
from captioning.curate.corpus.endings import Habits
from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.draft import Gadget
from captioning.curate.gadgets.boilerplate import Boilerplate
from captioning.curate.gadgets.clean import Clean
from captioning.curate.gadgets.duplicates import Duplicates
from captioning.curate.gadgets.ending import NO_HABITS, Ending
from captioning.curate.gadgets.ground import Ground
from captioning.curate.gadgets.language import Language
from captioning.curate.gadgets.length import Length
from captioning.curate.gadgets.off_topic import OffTopic
from captioning.curate.gadgets.reject import Reject
from captioning.curate.gadgets.select import Select
from captioning.curate.gadgets.support import Support
from captioning.curate.gadgets.unsafe import Unsafe
from captioning.curate.known import Known
from captioning.curate.text_rules.phrases import load_phrases

NO_TEXTS: Mapping[str, str] = MappingProxyType({})


def text_gadgets(config: CurateConfig, openers: Sequence[str] = (), habits: Habits = NO_HABITS) -> tuple[Gadget, ...]:
    """What a caption can be judged by alone, or beside its image's other answers.

    `openers` and `habits` are what was learnt of how captions begin and end.
    """
    phrases = load_phrases(config.phrases)
    return (
        Clean(config.clean, phrases, openers),
        Reject(config.reject, phrases),
        Ending(config.ending, phrases, habits),
        Length(config.length),
        Language(config.language),
        Unsafe(config.unsafe),
        OffTopic(config.off_topic),
    )


def image_gadgets(
    config: CurateConfig, known: Known | None = None, alt_texts: Mapping[str, str] = NO_TEXTS
) -> tuple[Gadget, ...]:
    """What needs the corpus, the picture, or the clean captions beside it. `alt_texts` are the shard's, by key."""
    known = known or Known()
    gadgets: list[Gadget] = [Boilerplate(NearDuplicates(config.boilerplate), known.crowded)]
    if known.image_text is not None:
        gadgets.append(Ground(known.image_text, known.thresholds))
    if config.support.enabled:
        gadgets.append(Support(config.support, known.objects, alt_texts))
    gadgets.append(Duplicates(config.duplicates, coverage=config.coverage))
    gadgets.append(Select(config.select, coverage=config.coverage, embed=known.embed, limits=config.length.limits()))
    return tuple(gadgets)


def columns(gadgets: Sequence[Gadget]) -> list[str]:
    """The columns of the captions table that these gadgets read."""
    return list(dict.fromkeys(name for gadget in gadgets for name in gadget.reads))


def all_gadgets(config: CurateConfig) -> tuple[Gadget, ...]:
    """All that needs neither corpus nor model, for captions that are few enough to be judged in one go."""
    return (*text_gadgets(config), *image_gadgets(config))
