"""Cue: somebody is spoken to: asked, told to do something, reminded of what they wanted or sent."""

from __future__ import annotations

from captioning.curate.text_rules.talk.sentences import Sentence
from captioning.curate.text_rules.talk.vocabulary import TalkWords

_NEAR = 4  # words
_POLITE = ("please", "just", "kindly")


def addresses(sentence: Sentence, words: TalkWords) -> bool:
    """Whether the sentence speaks to a reader; "you can see" and "it makes you feel" speak to everybody."""
    if sentence.asks and not sentence.has(words.hedge):
        return True
    if _bids(sentence, 0, words):
        return True
    return any(
        (word in words.reader and _is_meant(sentence, at, words))
        or ((word in _POLITE or (word in words.bid and _begins(sentence, at))) and _bids(sentence, at, words))
        for at, word in enumerate(sentence.words)
    )


def _bids(sentence: Sentence, start: int, words: TalkWords) -> bool:
    """Whether an imperative stands here, behind words such as "please" and "then"; "Give Way" is a sign."""
    at = sentence.after(start, words.lead)
    bid = sentence.words[at : at + 2]
    if not bid or bid[0] not in words.bid:
        return False
    if len(bid) == 1:
        return at > start  # "please retry"
    if bid[1] == "you" and sentence.words[at + 2 : at + 3]:  # "thank you for", and no "thank you card"
        return sentence.has(words.bid_what | words.want | words.between | words.witness, at + 2, at + 3)
    return bid[1] in words.bid_what | words.load and not sentence.capital(at + 2)


def _begins(sentence: Sentence, at: int) -> bool:
    """Whether a sentence may begin here behind one without a full stop ("… in a station Hope this helps")."""
    return sentence.capital(at) and not sentence.capital(at + 1)


def _is_meant(sentence: Sentence, at: int, words: TalkWords) -> bool:
    """Whether "you" or "your" means the one who asked for the caption."""
    if sentence.words[at] == "your":
        return sentence.has(words.request | words.answer | words.picture, at + 1, at + 4)
    before = sentence.words[max(0, at - 2) : at]
    if not words.causes.isdisjoint(before) or before[-2:] == ("as", "if"):
        return False
    if not words.whether.isdisjoint(before) and sentence.has(words.want | words.gave, at + 1, at + 1 + _NEAR):
        return True
    verb = sentence.after(at + 1, words.between | words.want | words.negative)
    return verb < len(sentence.words) and sentence.words[verb] in words.gave
