"""Cue: somebody speaks in the first person, and not only to bear witness ("I can see a boat", "before us lies")."""

from __future__ import annotations

import re

from captioning.curate.text_rules.talk.sentences import Sentence
from captioning.curate.text_rules.talk.vocabulary import TalkWords

_NEAR = 6  # words
_NUMERAL = re.compile("[IVX]{2,}|[VX]")


def speaks(sentence: Sentence, words: TalkWords) -> bool:
    """Whether a person speaks, or several do about what they cannot or will not do."""
    return any(
        (word in words.speaker and _is_person(sentence, at, words) and not _witnesses(sentence, at, words))
        or (word in words.team and _excuses_itself(sentence, at, words))
        for at, word in enumerate(sentence.words)
    )


def _is_person(sentence: Sentence, at: int, words: TalkWords) -> bool:
    """Whether this is no numeral ("Henry I"), and no word of a title ("My Little Pony", "I Want You")."""
    if sentence.capital(at + 1) and not sentence.raw[at + 1].isupper():
        return False
    if sentence.words[at + 1 : at + 2] and sentence.words[at + 1].isdigit():  # "Interstate I 95"
        return False
    if any(map(_NUMERAL.fullmatch, sentence.raw[at + 1 : at + 3])):  # "from I to XII"
        return False
    if not sentence.words[at].startswith("i"):
        return at == 0 or not sentence.capital(at)
    if at == 0 or sentence.words[at] != "i":
        return True
    if sentence.raw[at] == "i":  # also a word of other languages
        return sentence.has(words.will, at + 1, at + 2)
    before, after = sentence.words[at - 1], sentence.words[at + 1 : at + 3]
    is_name = sentence.capital(at - 1) and not (at == 1 and (before in words.lead or before.endswith("ly")))
    if is_name or before in words.numbered:
        return sentence.has(words.will, at + 1, at + 2) and after[1:] != ("be",)
    return True


def _witnesses(sentence: Sentence, at: int, words: TalkWords) -> bool:
    """Whether the speaker sees, and does not say that there is nothing to see, or no more ("all that I can see")."""
    if sentence.words[max(0, at - 1) : at] in (("that",), ("all",)):
        return False
    verb = sentence.after(at + 1, words.between)
    seen = sentence.words[verb : verb + 1]
    said = sentence.words[at + 1 : verb + 3]
    return bool(seen) and seen[0] in words.witness and words.negative.isdisjoint(said)


def _excuses_itself(sentence: Sentence, at: int, words: TalkWords) -> bool:
    """Whether "we" are sorry or decline, or do not do what was asked; "our" goes with rules and answers."""
    stop = at + 1 + _NEAR
    if sentence.has(words.regret, at + 1, stop):
        return True
    if sentence.has(words.rule | words.answer, at + 1, at + 3):
        return True
    verb = sentence.after(at + 1, words.between)
    wants = sentence.has(words.want | words.gave, verb, verb + 1)  # "we need to describe", "we were asked"
    if wants and sentence.has(words.perform | words.answer, verb, verb + _NEAR):
        return True
    denies = sentence.has(words.negative, at + 1, stop)
    loads = sentence.has(words.load, at + 1, stop) and sentence.has(words.picture, at + 1, stop + 2)
    return denies and (loads or sentence.has(words.perform, at + 1, stop))
