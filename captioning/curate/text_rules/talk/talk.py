"""Whether a text has a sentence of talk.

Refusals and remarks about the request come in ever new words, but they have a shape that captions do not have:
somebody speaks, addresses a reader, tells of the answer, or has no picture. Each of these cues is a file here.
"""

from __future__ import annotations

from captioning.curate.text_rules.talk.addresses import addresses
from captioning.curate.text_rules.talk.answers import answers
from captioning.curate.text_rules.talk.lacks import lacks
from captioning.curate.text_rules.talk.sentences import Sentence, asks, sentence_of, sentences
from captioning.curate.text_rules.talk.speaks import speaks
from captioning.curate.text_rules.talk.vocabulary import TalkWords
from captioning.curate.text_rules.words import words

REFUSAL, META = "refusal", "meta"  # reasons of the gadget `reject`


class Talk:
    """Tells talk from captions, by the words of a language."""

    def __init__(self, vocabulary: TalkWords) -> None:
        self.words = vocabulary
        self._signals = vocabulary.signals

    def judge(self, text: str, *, quotes: bool = False) -> str | None:
        """Why the text is no caption, if it is talk.

        Where captions quote what is written in a picture, a sentence has to be about the picture or the request too.
        """
        for number, part in enumerate(sentences(text)):
            if self._signals.isdisjoint(words(part)) and not asks(part):
                continue
            sentence = sentence_of(part, self.words)
            if not sentence.words:
                continue
            if quotes and not sentence.has(self.words.picture | self.words.request | self.words.perform):
                continue
            if lacks(sentence, self.words):
                return REFUSAL if number == 0 else META
            if speaks(sentence, self.words):
                return REFUSAL if number == 0 and self._refuses(sentence) else META
            if answers(sentence, self.words) or addresses(sentence, self.words):
                return META
        return None

    def _refuses(self, sentence: Sentence) -> bool:
        return sentence.has(self.words.negative) or sentence.has(self.words.regret)
