"""Hard negatives: one group of words is exchanged, which makes it false; seed, step and image alone decide how."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline import demo_world
from pipeline.clip_tokens import END_OF_WORD, clip_encoder, clip_pieces
from pipeline.config import build, load_yaml
from pipeline.demo_world.phrases import NUMBERS, PARTS, PLACE_PHRASES, RELATION_PHRASES
from pipeline.demo_world.vocabulary import BACKGROUNDS, SHAPES, SIZES
from pipeline.errors import ConfigError
from tests.training.loss_references import assert_same, embeddings, served_vectors, value
from tests.training.test_batches import assert_equal, make, texts_by_place
from tests.training.test_token_head import run
from training import trainer
from training.config import SOFTMAX_TERMS, RunConfig
from training.hard_negatives import WORDS, Tokens, hard_negatives, lexicon
from training.losses import gather

Recipe = Callable[..., dict[str, Any]]
GROUPS: dict[str, list[list[str]]] = {
    name: meanings for kind in ("attributes", "relations") for name, meanings in load_yaml(WORDS)[kind].items()
}
WAYS = [way for meanings in GROUPS.values() for ways in meanings for way in ways]
FILLERS = ["a", "an", "the", "cube", "ball", "colored", "and", ",", "of", "turquoises", "leftover", "vase", "."]
ARTICLES = {"a", "an"}


def tokens_of(text: str) -> Tokens:
    return tuple(clip_encoder()(text))


PIECES = clip_pieces()


def text_of(tokens: Tokens) -> str:
    """Words of plain letters, with single spaces."""
    return "".join(PIECES[token] for token in tokens).replace(END_OF_WORD, " ").strip()


def negatives_of(*texts: str, most: int = 1, seed: int = 0, longest: int = 75) -> list[str]:
    """Of an image with these captions, each in a slot of its own."""
    captions = [tokens_of(text) for text in texts]
    made = hard_negatives(list(enumerate(captions)), captions, most, longest, np.random.default_rng(seed))
    return [text_of(tokens) for _, tokens in made]


def rest_of(tokens: Tokens) -> list[str]:
    """The words that belong to no group, but for articles."""
    found, words, place = lexicon().find(tokens), [], 0
    for one in [*found, None]:
        words += text_of(tokens[place : one.start if one else None]).split()
        place = one.end if one else 0
    return [word for word in words if word not in ARTICLES]


captions = st.lists(st.sampled_from(WAYS) | st.sampled_from(FILLERS), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(captions, min_size=1, max_size=3), st.integers(0, 1000))
def test_one_group_of_words_is_exchanged(texts: list[str], seed: int) -> None:
    own = [tokens_of(text) for text in texts]
    meanings = {one.meaning for caption in own for one in lexicon().find(caption)}
    made = hard_negatives(list(enumerate(own)), own, 4, 75, np.random.default_rng(seed))
    assert made == hard_negatives(list(enumerate(own)), own, 4, 75, np.random.default_rng(seed))
    assert len({tokens for _, tokens in made}) == len(made) <= 4
    for slot, tokens in made:
        assert tokens not in own
        before, after = lexicon().find(own[slot]), lexicon().find(tokens)
        pairs = zip(before, after, strict=True)
        changed = {(one.meaning, other.meaning) for one, other in pairs if one.words != other.words}
        if len(changed) == 1:
            ((one, other),) = changed
            assert one[0] == other[0]
            assert other not in meanings
        else:  # two words swapped, or several ways to say one of them
            groups = {meaning[0] for pair in changed for meaning in pair}
            assert len(groups) == 1
            assert {pair[::-1] for pair in changed} == changed
        assert rest_of(tokens) == rest_of(own[slot])
    if not meanings:
        assert made == []


def test_two_attributes_swap_where_that_says_something_new() -> None:
    texts = {negatives_of("an orange cube and a blue ball", seed=seed)[0] for seed in range(40)}
    assert "a blue cube and an orange ball" in texts
    for true_when_swapped in ("a red ball and a blue ball", "the ball is red and blue", "a ball in red , one in blue"):
        made = {text for seed in range(40) for text in negatives_of(true_when_swapped, most=3, seed=seed)}
        assert len(made) > 10
        assert not [text for text in made if "red" in text and "blue" in text]
    both = ["a red cube and a blue ball", "a red ball", "a blue cube"]
    made = {text for seed in range(40) for text in negatives_of(*both, most=3, seed=seed)}
    assert "a blue cube and a red ball" not in made


@pytest.mark.parametrize(
    "text",
    [
        "a cube next to a ball",
        "a colored leftover",
        "nothing at all",
        "the cup beside the vase",
        "infrared",
        "",
        "left",
    ],
)
def test_no_words_of_a_group_no_negative(text: str) -> None:
    """Symmetrical relations and parts of words among them."""
    assert negatives_of(text, most=9) == []


def test_words_that_another_caption_means_are_not_put_in() -> None:
    texts = ["a large cube", "huge and tiny", "a chequered cloth to the left of two bells"]
    for seed in range(20):
        made = " ".join(negatives_of(*texts, most=20, seed=seed))
        assert "small" not in made
        assert {"striped", "right of"} & {way for way in WAYS if way in made}


def test_longer_words_are_put_in_whole_and_texts_are_cut() -> None:
    texts = {text for seed in range(60) for text in negatives_of("it is an old red vase by the wall", seed=seed)}
    assert "it is a new red vase by the wall" in texts
    cut = {text for seed in range(60) for text in negatives_of("two old vases", most=9, seed=seed, longest=1)}
    assert cut <= set(NUMBERS) | {"five", "six", "seven", "eight", "nine", "ten"}


def test_each_way_to_say_something_has_one_meaning() -> None:
    assert len(WAYS) == len(set(WAYS))
    for group, meanings in GROUPS.items():
        for number, ways in enumerate(meanings):
            for way in ways:
                (found,) = lexicon().find(tokens_of(way))
                assert found.meaning == (group, number)


PROMPTS = ("detail", "sentence", "phrase", "main_object", "other_objects", "layout", "relations", "attributes")
SHAPE, SIZE = f"({'|'.join(SHAPES)})", f"({'|'.join(SIZES)})"
COLOR = f"({'|'.join(way for ways in GROUPS['colour'] for way in ways)})"
PLACE = {phrase: place for place, phrase in PLACE_PHRASES.items()}
RELATION = {phrase: relation for relation, phrase in RELATION_PHRASES.items()}
AT, TO = (f"({'|'.join(sorted(phrases, key=len, reverse=True))})" for phrases in (PLACE, RELATION))
COUNTS = (*NUMBERS, "five", "six", "seven", "eight", "nine", "ten")


def false_claims(truth: dict[str, Any], text: str) -> list[Any]:
    """What a text about a scene of the demo world says that is not so."""
    text, main = re.sub(r" (?=[,.;])", "", text.lower()), truth["main"]["shape"]

    def said(pattern: str) -> list[Any]:
        return re.findall(rf"\b{pattern}\b", text)

    claims = [("object color", shape, color) for color, shape in said(f"{COLOR} {SHAPE}")]
    claims += [("main size", shape, size) for size, _, shape in said(f"{SIZE} (?:{COLOR} )?{SHAPE}")]
    claims += [("main size", main, size) for size in said(f"is {SIZE}")]
    claims += [("main color", main, color) for _, color in said(f"is {SIZE} and {COLOR}")]
    claims += [("object place", shape, PLACE[at]) for shape, at in said(f"{SHAPE} {AT}")]
    claims += [("relation", one, RELATION[to], other) for one, to, other in said(f"the {SHAPE} is {TO} the {SHAPE}")]
    claims += [("relation", one, RELATION[to], other) for to, other, one in said(f"{TO} the {SHAPE} is the {SHAPE}")]
    wrong: list[Any] = [claim for claim in claims if claim not in demo_world.facts(truth)]
    wrong += [
        count for count in said(r"(\w+) objects?") if count in COUNTS[2:] and count != COUNTS[1 + len(truth["others"])]
    ]
    wrong += [place for place in said(r"\w+ (?:table|wall|cloth)") if place != truth["background"]]
    wrong += [
        place for place in said(r"(?:in front of|behind) a \w+ wall") if place != BACKGROUNDS[truth["background"]]
    ]
    wrong += [style for style in said(r"\w+ and \w+ photo") if style != truth["style"]]
    is_of_parts = re.match(r"(the \w+|it|this \w+) (is|has)", text) and not said("neighbours|alone|most|there")
    return wrong + ([text] if is_of_parts and said("with|has") and PARTS[main] not in text else [])


def test_negatives_of_the_demo_world_are_false() -> None:
    """Of some 600 few may be true: where a scene is not known to be otherwise, a negative counts as true."""
    made, true = 0, []
    for seed in range(150):
        truth = demo_world.truth(demo_world.sample(seed))
        rng = np.random.default_rng(seed)
        texts = [demo_world.answer(truth, prompt, rng) for prompt in PROMPTS]
        assert not [wrong for text in texts for wrong in false_claims(truth, text)]
        negatives = negatives_of(*texts, most=4, seed=seed)
        made += len(negatives)
        true += [text for text in negatives if not false_claims(truth, text)]
    assert made > 500
    assert len(true) < 0.02 * made


MASK = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]]).bool()
SLOT_BN = torch.tensor([[0, 2], [1, -1], [-1, -1], [2, 2], [-1, -1]])


def plain_image_to_text(term: str, v: Tensor, t: Tensor, s: Tensor, negative_BND: Tensor, mask: Tensor) -> Tensor:
    """What hard negatives add to the term: of each caption half of log(sum with them) - log(sum without)."""
    if term == "best_branch":
        return plain_best_branch(v, t, s, negative_BND, mask)
    image = v if term in ("m2m", "o2m", "o2o") else served_vectors(v)[:, None]
    image = image.expand(-1, t.shape[1], -1)
    added = []
    for n, m in MASK.nonzero().tolist():
        if not mask[n, m]:
            continue
        if term == "multi_positive":
            row = [s * (image[n, 0] @ t[k, j]) for k, j in mask.nonzero().tolist()]
            false = [s * (image[n, 0] @ negative_BND[n, i]) for i in range(2) if SLOT_BN[n, i] >= 0]
        elif term == "o2o":
            first = {k: int(mask[k].int().argmax()) for k in range(len(v)) if mask[k].any()}
            if m != first[n]:
                continue
            row = [s * (image[n, 0] @ t[k, j]) for k, j in first.items()]
            false = [s * (image[n, 0] @ negative_BND[n, i]) for i in range(2) if SLOT_BN[n, i] == m]
        else:
            row = [s * (image[n, m] @ t[k, m]) for k in range(len(v)) if mask[k, m]]
            false = [s * (image[n, m] @ negative_BND[n, i]) for i in range(2) if SLOT_BN[n, i] == m]
        added.append((torch.stack(row + false).logsumexp(0) - torch.stack(row).logsumexp(0)) / 2)
    return torch.stack(added).mean()


def plain_best_branch(v: Tensor, t: Tensor, s: Tensor, negative_BND: Tensor, mask: Tensor) -> Tensor:
    added = []
    for n, m in mask.nonzero().tolist():
        row = [(s * (v[n] @ t[k, m])).logsumexp(0) for k in range(len(v)) if mask[k, m]]
        false = [(s * (v[n] @ negative_BND[n, i])).logsumexp(0) for i in range(2) if SLOT_BN[n, i] == m]
        added.append((torch.stack(row + false).logsumexp(0) - torch.stack(row).logsumexp(0)) / 2)
    return torch.stack(added).mean()


@pytest.mark.parametrize(
    ("term", "H"),
    [
        ("o2o", 1),
        ("o2m", 1),
        ("m2m", 3),
        ("served", 2),
        ("multi_positive", 2),
        ("best_branch", 1),
        ("best_branch", 2),
    ],
)
def test_negatives_are_columns_of_their_own_images_row(term: str, H: int) -> None:
    v, t, s = embeddings(4, 5, H, 3)
    _, negative_BND, _ = embeddings(5, 5, 1, 2)
    without = gather(v, t, MASK, s)
    loss = value(term, without.with_negatives(negative_BND, SLOT_BN))
    expected = value(term, without) + plain_image_to_text(term, v, t, s, negative_BND, MASK)
    assert_same(loss, expected, (v, t, s, negative_BND), 1e-8)
    assert loss > value(term, without)
    (grad,) = torch.autograd.grad(loss, negative_BND)
    assert not grad[SLOT_BN < 0].any()


@pytest.mark.parametrize("term", SOFTMAX_TERMS)
def test_every_term_with_a_softmax_meets_them_and_no_other_does(term: str) -> None:
    """Absent ones change nothing; those of free branches stand in the softmax of their slot as well."""
    v, t, s = embeddings(4, 5, 1 if term.startswith("o2") else 3, 3)
    _, negative_BND, _ = embeddings(5, 5, 1, 2)
    without = gather(v, t, MASK, s)
    none = value(term, without.with_negatives(negative_BND, torch.full_like(SLOT_BN, -1)))
    torch.testing.assert_close(none, value(term, without))
    few = gather(v[:, :2], t, MASK, s) if "free" in term else without  # in which slot 2 chooses
    assert value(term, few.with_negatives(negative_BND, SLOT_BN)) > value(term, few)
    for other in ("sigmoid", "diversity"):
        with pytest.raises(ConfigError, match="hard_negatives stand in a softmax"):
            build(RunConfig, {"losses": {other: 1.0, "text_conditioned": 1.0}, "hard_negatives": 1})


def test_batches_hold_them_and_are_else_as_without(tmp_path: Path, recipe: Recipe) -> None:
    """On any rank, and in whatever order batches are made. Pictures 3 mod 4 are white, the others red, green, blue."""
    plain, batches = make(tmp_path, recipe()), make(tmp_path, recipe(hard_negatives=2))
    ranks = [make(tmp_path, recipe(hard_negatives=2), rank=rank, ranks=2) for rank in range(2)]
    for step in (4, 1):
        batch, without = batches[step], plain[step]
        assert_equal(batches[step], batch)
        for name in ("image_BCSS", "box_B4", "mask_BM"):
            assert torch.equal(getattr(batch, name), getattr(without, name))
        texts = texts_by_place(batch)
        assert {place: text for place, text in texts.items() if place < 6 * 3} == texts_by_place(without)
        slot_BN = batch.negative_slot_BN
        assert slot_BN is not None
        assert (slot_BN >= 0).all()  # every image of these has colours in its captions
        shown = list(batches.inspect(step))
        for b in range(6):
            made = [texts[6 * 3 + b * 2 + n] for n in range(2)]
            assert [text_of(text[1:-1]) for text in made] == shown[b]["hard_negatives"]
            for n in range(2):
                assert made[n] != texts[b * 3 + int(slot_BN[b, n])]
        of_ranks = [maker[step].negative_slot_BN for maker in ranks]
        assert torch.equal(torch.cat([slots for slots in of_ranks if slots is not None]), slot_BN)
        assert torch.equal(batch.tokens_BML()[:, :, 1], without.tokens_BML()[:, :, 1])


def test_a_run_that_was_broken_off_goes_on_with_head_and_negatives(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if nothing had happened: the very losses, and the very weights, those of the token head among them."""
    settings = recipe(
        losses={"m2m": 1.0, "served": 1.0, "tokens": 0.5}, hard_negatives=1, epochs=2, checkpoint_every=2
    )
    whole = run(tmp_path / "whole", settings)
    step = trainer._step

    def broken(state: Any, batch: Any) -> Any:
        if batch.step == 3:
            raise OSError("power cut")
        return step(state, batch)

    monkeypatch.setattr(trainer, "_step", broken)
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path / "broken", settings)
    monkeypatch.setattr(trainer, "_step", step)
    again = run(tmp_path / "broken", settings)
    rows = [[json.loads(line) for line in trained.metrics.splitlines()] for trained in (whole, again)]
    assert [[row[key] for row in of_run] for of_run in rows for key in ("loss", "hard_negatives")][:2] == [
        [row[key] for row in rows[1]] for key in ("loss", "hard_negatives")
    ]
    assert rows[0][0]["hard_negatives"] > 0.5
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight), name
