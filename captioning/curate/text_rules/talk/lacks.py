"""Cue: the picture is missing or cannot be read, or must not be described."""

from __future__ import annotations

from captioning.curate.text_rules.talk.sentences import Sentence
from captioning.curate.text_rules.talk.vocabulary import TalkWords

_SUBJECT = 4  # words within which the subject of a sentence names the picture
_NEAR = 5


def lacks(sentence: Sentence, words: TalkWords) -> bool:
    """Whether a sentence's subject is a picture, file or answer that is not there, or the act that cannot be done."""
    start = sentence.after(0, words.lead)
    return (
        _regrets(sentence, words)
        or _is_not_there(sentence, start, words)
        or _there_is_none(sentence, start, words)
        or _cannot(sentence, start, words)
        or _must_not(sentence, start, words)
    )


def _regrets(sentence: Sentence, words: TalkWords) -> bool:
    """Such as "sorry, …", "apologies for …": the first word of a sentence, and no name of a board game."""
    if sentence.words[0] not in words.regret or sentence.capital(2):
        return False
    return sentence.has(words.bid_what | words.negative | words.speaker | words.team, 1, 2)


def _is_not_there(sentence: Sentence, start: int, words: TalkWords) -> bool:
    """Such as "the image you sent could not be loaded", "image unavailable", "an error occurred"."""
    for at, word in enumerate(sentence.words[start : start + _SUBJECT], start):
        if word not in words.picture and word not in words.answer and word not in words.trouble:
            continue
        fails = sentence.after(at + 1, words.between | words.load | words.picture)
        if _ends_broken(sentence, fails, words):
            return True
        if sentence.has(words.negative, fails, fails + 1):
            verb = sentence.after(fails + 1, words.between | words.negative)
            return sentence.has(words.load | words.perform, verb, verb + 1)
    return False


def _ends_broken(sentence: Sentence, at: int, words: TalkWords) -> bool:
    """Whether it is broken or missing, and not missing a corner."""
    if not sentence.has(words.broken, at, at + 1):
        return False
    near = words.this | words.reader | words.speaker  # "at this time", "from your message"
    return (
        at + 1 == len(sentence.words)
        or sentence.has(near, at + 1, at + 3)
        or (sentence.has(words.lead, at + 1, at + 2) and not sentence.has(words.between, at + 2, at + 3))
    )


def _there_is_none(sentence: Sentence, start: int, words: TalkWords) -> bool:
    """Such as "no image was provided", "there doesn't seem to be a file attached", "without seeing the picture"."""
    for at, word in enumerate(sentence.words):
        if word not in words.negative:
            continue
        noun = sentence.after(at + 1, words.between)
        acts, given = sentence.has(words.perform, at + 1, at + 4), sentence.has(words.gave, noun, noun + 1)
        sees = sentence.has(words.load, at + 1, at + 3) and sentence.has(words.picture, at + 2, at + 2 + _SUBJECT)
        if (word == "nothing" and (acts or given)) or (word == "without" and sees):
            return True
        if at <= start + 2 and sentence.has(words.picture | words.answer, noun, noun + 1):
            verb = sentence.after(noun + 1, words.between | words.picture)
            if verb == len(sentence.words):
                return at == start
            if word == "without":
                return at == start and sentence.has(words.speaker | words.lead | words.between, noun + 1, noun + 2)
            if sentence.has(words.load | words.perform, verb, verb + 1) or sentence.has(words.request, verb, verb + 3):
                return True
    return False


def _cannot(sentence: Sentence, start: int, words: TalkWords) -> bool:
    """Such as "unable to process the image", "it is not possible to describe", "describing people is not allowed"."""
    trouble = start > 0 and sentence.has(words.trouble, start, start + 3)  # "there is a problem with the file"
    if trouble and sentence.has(words.things, start + 1, start + 3 + _NEAR):
        return True
    first = sentence.words[start : start + 1]
    if first and first[0] in words.negative:
        verb = sentence.after(start + 1, words.between)
        if sentence.has(words.perform, verb, verb + 1):
            return True
        if sentence.has(words.load, verb, verb + 1) and sentence.has(words.things, verb + 1, verb + 1 + _NEAR):
            return True
    act = next((at for at, word in enumerate(sentence.words[: start + 10]) if word in words.perform), None)
    if act is None:
        return False
    if act <= start and first and first[0].endswith("ing"):
        return sentence.has(words.negative, act + 1) or sentence.has(words.rule, act + 1)
    judged = sentence.words[0] in ("it", "it's", "this") and sentence.words[act - 1] in ("to", "me", "for")
    return judged and (sentence.has(words.negative | words.rule, 1, act))


def _must_not(sentence: Sentence, start: int, words: TalkWords) -> bool:
    """Such as "due to privacy concerns", "this image violates the content policy"."""
    if not sentence.has(words.rule):
        return False
    pairs = zip(sentence.words, sentence.words[1:], strict=False)
    if any(first in words.ground and second in words.rule for first, second in pairs):
        return sentence.has(words.basis, 0, 2) or sentence.has(words.negative | words.perform | words.answer)
    return sentence.has(words.this, start, start + 1) and (
        sentence.has(words.things, start, start + _SUBJECT) and sentence.has(words.rule, start, start + 2 * _NEAR)
    )
