"""Openers that are learnt from the captions of a corpus."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from captioning.curate.corpus.openers import SAMPLE, Openers
from captioning.curate.draft import Draft
from captioning.curate.gadgets.clean import Clean, CleanConfig
from captioning.curate.text_rules.phrases import load_phrases

PHRASES = load_phrases(None)


def corpus(openers: dict[str, float], images: int = 400) -> list[list[str]]:
    """Captions of images: a share of them begins with each opener, the rest says the same things without."""
    rng = Random(1)
    told = []
    for number in range(images):
        nouns = [
            f"{rng.choice(['red', 'blue', 'tiny', 'huge', 'pale'])} {word}{number % 37}" for word in ("boat", "dog")
        ]
        opener = next((o for o in openers if rng.random() < openers[o]), "")
        text = f"a {nouns[0]} beside the {nouns[1]}."
        told.append([f"{opener} {text}" if opener else text.capitalize(), f"There is a {nouns[1]}.", "A red square."])
    return told


def learnt(told: list[list[str]], shards: int = 1, seed: int = 0) -> tuple[str, ...]:
    """What is learnt from these images, spread over shards in any order."""
    order = list(range(len(told)))
    Random(seed).shuffle(order)
    statistic = Openers(CleanConfig(), PHRASES.learn)
    tables: list[pa.Table] = []
    for shard in range(shards):
        rows = [(f"{shard}_{i:05}", f"{i}-{n}", text) for i in order[shard::shards] for n, text in enumerate(told[i])]
        keys, identities, texts = zip(*rows, strict=True)
        tables.append(statistic.of_shard(Draft({"key": keys, "caption_id": identities, "text": texts})))
    return statistic.merge(iter(tables))


def test_new_openers_are_learnt_and_taken_off() -> None:
    openers = learnt(corpus({"In this snapshot one recalls": 0.2, "The visual evokes": 0.2}))
    assert openers == ("in this snapshot one recalls", "the visual evokes")
    clean = Clean(CleanConfig(), PHRASES, openers)
    assert clean.clean("In this snapshot, one recalls a red boat.") == "A red boat."
    assert clean.clean("The visual evokes that it is late.") == "The visual evokes that it is late."
    unlearnt = "The visual evokes a red boat."
    assert Clean(CleanConfig(), PHRASES).clean(unlearnt) == unlearnt


@pytest.mark.parametrize(
    "opener",
    ["A red square beside", "There is", "A black and white photo of", "The photo was taken in", "The boat next to"],
)
def test_content_is_never_learnt(opener: str) -> None:
    assert learnt(corpus({opener: 0.5})) == ()


def test_a_sentence_repeated_over_the_corpus_is_no_opener() -> None:
    told = [["The visual shows a calm blue sea at dawn."] for _ in range(300)]
    assert learnt(told) == ()


def test_few_images_teach_nothing() -> None:
    assert learnt(corpus({"The visual highlights": 0.5}, images=30)) == ()


@pytest.mark.parametrize(("shards", "seed"), [(1, 3), (4, 1), (9, 2)])
def test_openers_do_not_depend_on_shards_or_order(shards: int, seed: int) -> None:
    told = corpus({"In this snapshot one notices": 0.1, "This frame offers": 0.3})
    assert learnt(told, shards, seed) == learnt(told) != ()


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SAMPLE == 30_000
    monkeypatch.setattr("captioning.curate.corpus.openers.SAMPLE", 250)
    told = corpus({"The visual highlights": 0.5})
    assert learnt(told, 3) == learnt(told, 8, 5) == ("the visual highlights",)


def test_the_sample_is_of_the_same_images_whatever_the_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioning.curate.corpus.openers.SAMPLE", 20)
    monkeypatch.setattr("captioning.curate.corpus.openers.learn", lambda images, *_: tuple(map(tuple, sorted(images))))
    told = corpus({"The visual highlights": 1.0})
    assert learnt(told, 3) == learnt(told, 8, 5) == learnt(told)
    assert len(learnt(told)) == 20
