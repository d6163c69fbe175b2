"""Boilerplate openers that are learnt from the captions: "In this snapshot one notices", "The visual highlights", …

Every model has its own way to begin, and a list is always behind. What is learnt must be talk about the picture and
never content, so an opener is a run of words at the start of a caption that

- has a word for a picture among its first words, with nothing but stock words before it, and no article or number
  after it (`learn` in phrases.yaml): "A red square", "there is a" and "a black and white photo of" cannot be learnt;
- begins captions of very many different images (`learn_share` of all images, and at least `MIN_IMAGES` of them);
- is followed, at least every second time, by a word that opens a noun phrase ("a", "the", "two", …): what is left
  stands by itself, and so "The photo was taken" is none;
- goes on in many ways: the effective number of what follows (inverse Simpson index of the next two words after the
  article) is at least `BRANCHES`, so a sentence that is itself repeated over the corpus is none.

Longer runs come first, and what they explain does not count for the shorter ones: where "in this picture" is always
followed by "we can see", only the longer one is learnt.

It is counted on a sample: the `SAMPLE` images with the smallest hashes. Such a sample can be merged, takes flat
memory and is the same whatever the shards are; a share of 0.2 % is estimated with a standard error of 0.03 %.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc

from captioning.curate.draft import Draft
from captioning.curate.gadgets.clean import CleanConfig
from captioning.curate.text_rules.markup.unwrap import bare
from captioning.curate.text_rules.phrases import LearnWords
from captioning.curate.text_rules.words import words
from pipeline.identity import digest

SAMPLE = 30_000  # images
MIN_IMAGES = 20
MIN_FOLLOWED = 0.5
BRANCHES = 10.0
PICTURE_WITHIN = 6  # words
MAX_AFTER = 5  # words of an opener after the word for a picture
KEPT_WORDS = PICTURE_WITHIN + MAX_AFTER + 4
SCHEMA = pa.schema([("image", pa.uint64()), ("openings", pa.list_(pa.string()))])
_FIRST_CLAUSE = re.compile(r"[^.!?;\n]{0,200}")

Opening = tuple[str, ...]


@dataclass(frozen=True)
class Openers:
    """Samples openings by image. The merged result are the openers, sorted; the draft's texts are the raw ones."""

    config: CleanConfig
    words: LearnWords

    name = "openers"

    @cached_property
    def digest(self) -> str:
        """Of what decides which openings are kept."""
        stock = [sorted(self.words.picture), sorted(self.words.before)]
        return digest(["caption_id", SAMPLE, PICTURE_WITHIN, KEPT_WORDS, *stock, self.config.markup])

    def of_shard(self, draft: Draft) -> pa.Table:
        """The openings that may be talk about the picture, image by image, of the shard's share of the sample."""
        identities = draft.columns["caption_id"]
        by_rank = {_rank(identities[rows.start]): rows for rows in draft.images}  # copies of a picture have the same
        ranked = sorted(by_rank)[:SAMPLE]
        openings = [self._openings(draft.texts[row] for row in by_rank[rank]) for rank in ranked]
        return pa.table([ranked, openings], schema=SCHEMA)

    def merge(self, tables: Iterator[pa.Table]) -> tuple[str, ...]:
        """The learnt openers, such as "in this snapshot one notices"."""
        sample = SCHEMA.empty_table()
        for table in tables:
            sample = pa.concat_tables([sample, table])
            if len(sample) > SAMPLE:
                sample = sample.take(pc.select_k_unstable(sample, SAMPLE, [("image", "ascending")]))
        return learn(
            [[tuple(o.split()) for o in own] for own in sample["openings"].to_pylist()], self.words, self.share
        )

    @property
    def share(self) -> float:
        """How many images of all must have a caption that begins so."""
        return self.config.learn_share

    @cached_property
    def _begins(self) -> re.Pattern[str]:
        """What a text must begin with to be looked at: nearly all texts are told by their first word."""
        before, picture = ("|".join(map(re.escape, sorted(some))) for some in (self.words.before, self.words.picture))
        return re.compile(rf"\W*(?:(?:{before})\W+){{0,{PICTURE_WITHIN - 1}}}(?:{picture})\b", re.IGNORECASE)

    def _openings(self, texts: Iterable[str]) -> list[str]:
        openers = set()
        for raw in texts:
            text = bare(raw, "sentence") if self.config.markup else raw
            if not self._begins.match(text):
                continue
            spoken = words(_FIRST_CLAUSE.match(text)[0])[:KEPT_WORDS]  # type: ignore[index]  # it matches everything
            if picture_at(spoken, self.words) is not None:
                openers.add(" ".join(spoken))
        return sorted(openers)


def picture_at(opening: Sequence[str], stock: LearnWords) -> int | None:
    """Where the word for a picture is, if only stock words stand before it."""
    for position, word in enumerate(opening[:PICTURE_WITHIN]):
        if word in stock.picture:
            return position
        if word not in stock.before:
            return None
    return None


def learn(images: Sequence[Sequence[Opening]], stock: LearnWords, share: float) -> tuple[str, ...]:
    """The openers among the openings of images; see the module for the rule."""
    least = max(MIN_IMAGES, share * len(images))
    seen: dict[Opening, set[int]] = defaultdict(set)
    for number, openings in enumerate(images):
        for opening in openings:
            for stop in _stops(opening, stock):
                seen[opening[:stop]].add(number)
    frequent = {prefix for prefix, numbers in seen.items() if len(numbers) >= least}
    followed: dict[Opening, list[tuple[int, Opening]]] = defaultdict(list)
    for number, openings in enumerate(images):
        for opening in openings:
            for stop in _stops(opening, stock):
                if opening[:stop] in frequent:
                    followed[opening[:stop]].append((number, opening))
    learnt: set[Opening] = set()
    for prefix in sorted(frequent, key=lambda prefix: (-len(prefix), prefix)):
        unexplained = [
            (number, opening[len(prefix) :])
            for number, opening in followed[prefix]
            if not any(opening[:stop] in learnt for stop in _stops(opening, stock) if stop > len(prefix))
        ]
        images_left = len({number for number, _ in unexplained})
        if images_left >= least and _is_opener([rest for _, rest in unexplained], stock):
            learnt.add(prefix)
    return tuple(sorted(" ".join(prefix) for prefix in learnt))


def _stops(opening: Opening, stock: LearnWords) -> list[int]:
    """Lengths at which an opener may end: at or after the word for a picture, before a noun phrase.

    No preposition ends one ("the photo was taken in"), unless it belongs to its verb ("the photo focuses on").
    """
    at = picture_at(opening, stock)
    if at is None:
        return []
    stops = []
    for stop in range(at + 1, min(at + 1 + MAX_AFTER, len(opening) - 1) + 1):
        last = opening[stop - 1]
        if stop > at + 1 and last in stock.follows:
            if opening[stop] not in stock.watchers:
                break
        elif last not in stock.never_last or not stock.phrasal.isdisjoint(opening[at:stop]):
            stops.append(stop)
    return stops


def _is_opener(rests: Sequence[Opening], stock: LearnWords) -> bool:
    if sum(rest[0] in stock.follows for rest in rests) < MIN_FOLLOWED * len(rests):
        return False
    contents = Counter(tuple(word for word in rest if word not in stock.follows)[:2] for rest in rests)
    return len(rests) ** 2 / sum(count * count for count in contents.values()) >= BRANCHES


def _rank(caption_id: str) -> int:
    """An image's place in the order by which the sample is drawn, by its first caption: as good as random.

    Not by its key, which may tell the shard.
    """
    return int.from_bytes(blake2b(caption_id.encode(), digest_size=8).digest())
