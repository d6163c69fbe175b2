"""Hard negatives: captions made false by exchanging one group of words (as NegCLIP, Yuksekgonul et al. 2023).

A word of an attribute, a number or a relation becomes another of its kind, everywhere in the caption; or two
attributes of a kind swap places. Captions are tokens here, as the index holds them: a word is a run of tokens up to
one that ends a word, so words are found and put in whole, whatever number of tokens they have.

Whether the picture shows what is now said cannot be known. What can be is looked at: no other caption of the image
names the word that is put in, and a swap must say something new of each thing, and nothing that a caption says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clip_tokens import END_OF_WORD, clip_encoder, clip_pieces
from pipeline.config import load_yaml

WORDS = Path(__file__).with_suffix(".yaml")
Tokens = tuple[int, ...]
Meaning = tuple[str, int]  # a group, and which of its meanings


@dataclass(frozen=True)
class Found:
    """Words of a group in a caption: tokens[start:end]."""

    start: int
    end: int
    words: Tokens
    meaning: Meaning


@dataclass(frozen=True)
class Lexicon:
    """The groups of words, as tokens. `by_first`: words and what they mean by their first token, longest first."""

    by_first: Mapping[int, Sequence[tuple[Tokens, Meaning]]]
    said: Mapping[str, Sequence[Tokens]]  # how each meaning of a group is put in
    swapped: frozenset[str]  # groups whose words may swap places
    joining: frozenset[Tokens]
    ends: frozenset[int]  # tokens that end a word
    lettered: frozenset[int]  # tokens that begin with a letter
    articles: Mapping[Tokens, bool]  # a and an, and which is for vowels
    vowels: frozenset[Tokens]  # words that are put in and begin with one

    def find(self, tokens: Sequence[int]) -> list[Found]:
        """The words of groups in a caption, none within another."""
        found: list[Found] = []
        begins, free = True, 0  # whether a word begins here, and from where on none of those found stands
        for place, token in enumerate(tokens):
            if begins and place >= free and token in self.by_first and (one := self._at(tokens, place)):
                found.append(one)
                free = one.end
            begins = token in self.ends
        return found

    def follower(self, tokens: Sequence[int], one: Found) -> Tokens | None:
        """The word after an attribute, which it is said of; None where it is no such word."""
        word = tuple(tokens[one.end : self._end_of_word(tokens, one.end)])
        return word if word and word[0] in self.lettered and word not in self.joining else None

    def replaced(self, tokens: Sequence[int], found: Sequence[Found], new: Mapping[Tokens, Tokens]) -> Tokens:
        """The caption with these words in place of others, and `a` or `an` before them as they want it."""
        made: list[int] = []
        place = 0
        for one in found:
            if one.words in new:
                made += tokens[place : one.start]
                self._set_article(made, new[one.words])
                made += new[one.words]
                place = one.end
        return (*made, *tokens[place:])

    def _at(self, tokens: Sequence[int], place: int) -> Found | None:
        for words, meaning in self.by_first[tokens[place]]:
            end = place + len(words)
            if tuple(tokens[place:end]) == words:
                return Found(place, end, words, meaning)
        return None

    def _end_of_word(self, tokens: Sequence[int], place: int) -> int:
        while place < len(tokens) and tokens[place] not in self.ends:
            place += 1
        return min(place + 1, len(tokens))

    def _set_article(self, made: list[int], words: Tokens) -> None:
        last = next((article for article in self.articles if tuple(made[-len(article) :]) == article), None)
        before = made[-len(last) - 1] if last and len(made) > len(last) else None
        if last and (before is None or before in self.ends):
            made[-len(last) :] = next(a for a, vowel in self.articles.items() if vowel == (words in self.vowels))


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The groups of hard_negatives.yaml."""
    data = load_yaml(WORDS)
    groups: dict[str, Any] = {**data["attributes"], **data["relations"]}
    encode, pieces = clip_encoder(), clip_pieces()
    by_first: dict[int, list[tuple[Tokens, Meaning]]] = {}
    for group, meanings in groups.items():
        for number, ways in enumerate(meanings):
            for way in ways:
                words = tuple(encode(way))
                by_first.setdefault(words[0], []).append((words, (group, number)))
    said = {group: [tuple(encode(ways[0])) for ways in meanings] for group, meanings in groups.items()}
    spelt = {tuple(encode(ways[0])): ways[0] for meanings in groups.values() for ways in meanings}
    return Lexicon(
        by_first={first: sorted(known, key=lambda one: -len(one[0])) for first, known in by_first.items()},
        said=said,
        swapped=frozenset(data["attributes"]),
        joining=frozenset(tuple(encode(word)) for word in data["joining"]),
        ends=frozenset(token for token, piece in enumerate(pieces) if piece.endswith(END_OF_WORD)),
        lettered=frozenset(token for token, piece in enumerate(pieces) if piece[0].isalpha()),
        articles={tuple(encode("a")): False, tuple(encode("an")): True},
        vowels=frozenset(words for words, text in spelt.items() if text[0] in "aeiou"),
    )


def hard_negatives(
    drawn: Sequence[tuple[int, Tokens]], captions: Sequence[Tokens], most: int, longest: int, rng: np.random.Generator
) -> list[tuple[int, Tokens]]:
    """Up to so many false captions of an image, each with the slot of the one it was made of.

    drawn: slots and captions that are changed, in turn; captions: all that the image has, these among them. Of each
    text its first `longest` tokens count. No negative is a caption of the image, no two are alike, and where no
    caption holds words of a group there is none.
    """
    image = _Image([caption[:longest] for caption in captions])
    turns = [(drawn[i][0], image.changed(drawn[i][1][:longest], rng)) for i in rng.permutation(len(drawn))]
    made: dict[Tokens, int] = {}
    while turns and len(made) < most:
        slot, changed = turns.pop(0)
        cut = (tokens[:longest] for tokens in changed)
        one = next((tokens for tokens in cut if tokens not in image.captions and tokens not in made), None)
        if one is not None:
            made[one] = slot
            turns.append((slot, changed))
    return [(slot, tokens) for tokens, slot in made.items()]


class _Image:
    """What the captions of an image say, in words of groups."""

    def __init__(self, captions: Sequence[Tokens]) -> None:
        self._words = lexicon()
        self.captions = {tokens: self._words.find(tokens) for tokens in captions}
        self._meanings = {one.meaning for found in self.captions.values() for one in found}

    def changed(self, tokens: Tokens, rng: np.random.Generator) -> Iterator[Tokens]:
        """The caption with one group of words exchanged, in each way that makes it false, in a random order."""
        found = self.captions[tokens]
        different = {one.words: one.meaning for one in found}
        pairs = [pair for pair in combinations(different, 2) if self._may_swap(different, *pair)]
        ways: list[tuple[Tokens, ...]] = [*((words,) for words in different), *pairs]
        for number in rng.permutation(len(ways)).tolist():
            if len(ways[number]) == 1:
                (old,) = ways[number]
                for new in self._others(different[old], rng):
                    yield self._words.replaced(tokens, found, {old: new})
            else:
                one, other = ways[number]
                if self._would_be_false(tokens, {one: different[other], other: different[one]}):
                    yield self._words.replaced(tokens, found, {one: other, other: one})

    def _others(self, meaning: Meaning, rng: np.random.Generator) -> Iterator[Tokens]:
        """Words of the same group that no caption of the image means, in a random order."""
        group, _ = meaning
        for number in rng.permutation(len(self._words.said[group])).tolist():
            if (group, number) not in self._meanings:
                yield self._words.said[group][number]

    def _may_swap(self, different: Mapping[Tokens, Meaning], one: Tokens, other: Tokens) -> bool:
        (group, meaning), (of_other, other_meaning) = different[one], different[other]
        return group == of_other and group in self._words.swapped and meaning != other_meaning

    def _would_be_false(self, tokens: Tokens, turned: Mapping[Tokens, Meaning]) -> bool:
        """Whether words that mean something else would be said of things that no caption says it of."""
        found = [one for one in self.captions[tokens] if one.words in turned]
        claims = {(turned[one.words], self._words.follower(tokens, one)) for one in found}
        return all(what is not None for _, what in claims) and claims.isdisjoint(self._said)

    @cached_property
    def _said(self) -> set[tuple[Meaning, Tokens | None]]:
        """All that is said of things: what, and the word after it."""
        follower = self._words.follower
        return {(one.meaning, follower(tokens, one)) for tokens, found in self.captions.items() for one in found}
