"""Cue: the sentence is about the answer or about what was asked, where a caption is about the picture."""

from __future__ import annotations

from captioning.curate.text_rules.talk.sentences import Sentence
from captioning.curate.text_rules.talk.vocabulary import TalkWords

_NEAR = 6  # words
_SUBJECT = 4  # words within which a subject names the answer or the request
_HERE = {(place, verb) for place in ("here", "below") for verb in ("is", "are")}


def answers(sentence: Sentence, words: TalkWords) -> bool:
    """Whether it tells of a description, a prompt, a user; "the answer on the board" is part of a picture."""
    return (
        _points_at_answer(sentence, words)
        or _tells_of_request(sentence, words)
        or _goes_by_request(sentence, words)
        or _as_wanted(sentence, words)
    )


def _points_at_answer(sentence: Sentence, words: TalkWords) -> bool:
    """Such as "this description", "the above caption"; "Here is a caption"."""
    if sentence.words[0] in ("here's", "here’s") or sentence.words[:2] in _HERE:
        return sentence.has(words.told, 1, 2 + _NEAR)
    starts = (at + 1 for at, word in enumerate(sentence.words) if word in words.this)
    return any(
        sentence.has(
            words.told, at, at + 1 if sentence.has(words.between, at, at + 1) else at + 2
        )  # "this short caption"
        for at in starts
    )


def _tells_of_request(sentence: Sentence, words: TalkWords) -> bool:
    """Such as "the user wants", "the prompt asks", "a caption was generated", at the sentence's beginning."""
    start = sentence.after(0, words.lead)
    subject = sentence.words[start : start + _SUBJECT]
    if words.told.isdisjoint(subject):
        return False
    at = start + next(place for place, word in enumerate(subject) if word in words.told)
    verb = sentence.after(at + 1, words.between)
    if sentence.has(words.demand | words.perform | words.gave, verb, verb + 1):
        return True
    return verb > at + 1 and sentence.has(words.basis, verb, verb + 1)  # "the question is about", "the task is to"


def _goes_by_request(sentence: Sentence, words: TalkWords) -> bool:
    """Such as "following the instructions, …", "per the request"."""
    first = sentence.has(words.basis, 0, 2) and sentence.has(words.request, 1, 1 + _NEAR)
    return first or any(
        word == "per" and sentence.has(words.request, at + 1, at + 3) for at, word in enumerate(sentence.words)
    )


def _as_wanted(sentence: Sentence, words: TalkWords) -> bool:
    """Such as "as requested", "if needed", "upon request", "if more information is required"."""
    if not sentence.has(words.wanted) and not sentence.has(words.request):
        return False
    for at, word in enumerate(sentence.words):
        before = sentence.words[max(0, at - 1) : at]
        if word in words.wanted:
            by = sentence.words[at + 1 : at + 2] == ("by",)
            if before == ("as",) and not by:
                return True
            if "if" in sentence.words[max(0, at - 5) : at] and not by:
                return True
        if word == "request" and before in (("on",), ("upon",)):
            return True
    return False
