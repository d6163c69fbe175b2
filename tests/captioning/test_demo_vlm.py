"""The demo VLM: its training data are what it meets in use, its files load, and the shipped weights see."""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.demo_vlm import evaluate, train
from captioning.demo_vlm.attributes import normalise, patch_tokens, scene_targets
from captioning.demo_vlm.conversations import PromptBook, collate, converse, pick_prompts
from captioning.demo_vlm.evaluate import ask, headline, write_card
from captioning.demo_vlm.loading import WEIGHTS, DemoVlm
from captioning.demo_vlm.model import IMAGE_TOKENS, TextSize, build_model, save_model
from captioning.demo_vlm.pool import PATCH, build_pool, patch_labels
from captioning.demo_vlm.schedule import batches, learning_rate
from captioning.demo_vlm.scoring import bars, is_true, parse_json
from captioning.demo_vlm.see import SeeSettings, take_tower, train_tower
from captioning.demo_vlm.speak import PREFIX, Speaker, answer_loss
from captioning.demo_vlm.tokens import IMAGE, USER, build_processor
from pipeline.demo_world import HELDOUT_OFFSET, PROMPT_IDS, answers, render, sample, truth
from pipeline.demo_world.vocabulary import SHAPES
from pipeline.errors import ConfigError


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def shipped() -> DemoVlm:
    return DemoVlm.load()


def fresh_model():
    tokenizer = shipped().processor.tokenizer
    torch.manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids(IMAGE), tokenizer.eos_token_id, tokenizer.pad_token_id
    return build_model(len(tokenizer), *ids).eval()


def picture(seed: int) -> torch.Tensor:
    return normalise(torch.from_numpy(np.asarray(render(sample(seed)))[None].copy()))


# --- data -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 40))
def test_patch_labels_name_what_covers_the_patch(seed: int) -> None:
    scene = sample(seed)
    shape_labels = patch_labels(scene)[0]
    named = {SHAPES[label - 1] for label in np.unique(shape_labels) if label}
    assert scene.main_thing.shape in named
    assert named <= {thing.shape for thing in scene.things}
    masks = scene.visible_masks()
    for row, column in np.argwhere(shape_labels == 0):
        top, left = row * PATCH, column * PATCH
        assert max(mask[top : top + PATCH, left : left + PATCH].mean() for mask in masks) <= 0.25 + 1e-9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 40))
def test_targets_hide_what_the_style_hides(seed: int) -> None:
    t = truth(sample(seed))
    classes, present = scene_targets(t)
    assert (classes[1] == -100) == (t["main"]["color"] is None)
    assert sum(present) == 1 + len(t["others"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1 << 40))
def test_exchanges_answer_truly_and_leave_no_blank(seed: int) -> None:
    book, rng, t = PromptBook(), np.random.default_rng(seed), truth(sample(seed))
    for prompt in PROMPT_IDS:
        question, reply = book.exchange(t, prompt, rng)
        assert "{" not in question
        assert is_true(t, prompt, reply)


def test_every_prompt_of_both_sets_is_practised() -> None:
    assert set(PromptBook().paraphrases) == set(PROMPT_IDS)
    assert all(len(wordings) >= 5 for wordings in PromptBook().paraphrases.values())
    rng = np.random.default_rng(0)
    assert set(itertools.chain(*(pick_prompts(truth(sample(seed)), rng) for seed in range(60)))) == set(PROMPT_IDS)


def test_sharing_one_look_equals_asking_one_by_one() -> None:
    """Exchanges that share the image's cached tokens have the loss of conversations of their own, padding or not."""
    model, tokenizer, t = fresh_model(), shipped().processor.tokenizer, truth(sample(5))
    prompts = ["nouns", "style", "detail", "text", "phrase"]
    talk = converse(t, PromptBook(), tokenizer, prompts, np.random.default_rng(0))
    user, image = tokenizer.convert_tokens_to_ids([USER, IMAGE])
    expected = []
    with torch.no_grad():
        shared = answer_loss(model, patch_tokens(model.model.vision_tower, picture(5)), collate([talk], 0), user)
        for exchange in talk:
            tokens = torch.from_numpy(exchange.token)
            alone = torch.cat([torch.tensor([user] + [image] * IMAGE_TOKENS), tokens])[None]
            logits = model(input_ids=alone, pixel_values=picture(5)).logits[0, PREFIX - 1 : -1]
            expected.append(F.cross_entropy(logits, tokens, reduction="none")[torch.from_numpy(exchange.learn)])
    torch.testing.assert_close(shared.sort().values, torch.cat(expected).sort().values, atol=1e-4, rtol=1e-4)


def test_resuming_goes_on_with_the_same_batches() -> None:
    whole = list(itertools.islice(batches(scenes=50, batch=8, first_step=0, seed=3), 20))
    resumed = list(itertools.islice(batches(scenes=50, batch=8, first_step=13, seed=3), 7))
    assert all(torch.equal(a, b) for a, b in zip(whole[13:], resumed, strict=True))
    assert len(set(torch.cat(whole[:6]).tolist())) == 48


def test_learning_rate_warms_up_and_cools_down() -> None:
    rates = [learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[0] < 0.05
    assert rates[-1] < 0.03


# --- scoring --------------------------------------------------------------------------------------------------


def test_scores_tell_right_from_wrong() -> None:
    t = {
        "background": "sea", "style": "sepia photo", "size": "large", "sign": None,
        "main": {"shape": "star", "color": "red", "place": "top"},
        "others": [{"shape": "fish", "color": "blue", "place": "left", "relation": "left of"}],
    }  # fmt: skip
    said = {
        "main_object": "A large red star.", "background": "A sea with rows of rolling waves.",
        "style": "A sepia photo, it feels nostalgic.", "nouns": "star, fish, sea",
    }  # fmt: skip
    assert set(bars(t, said).values()) == {True}
    wrong = {"main_object": "A large blue moon.", "background": "A city.", "style": "A cartoon.", "nouns": "star, sea"}
    assert set(bars(t, wrong).values()) == {False}
    assert bars(t | {"main": t["main"] | {"color": None}}, said)["main colour"] is None
    assert all(is_true(t, prompt, text) for prompt in PROMPT_IDS for text in answers(t, prompt))
    assert not is_true(t, "text", 'The sign says "OPEN".')
    assert not is_true(t, "everything", answers(t, "everything")[0][:-1])
    assert parse_json('{"a": 1}') is None


def test_the_model_card_keeps_its_own_words(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("before\n<!-- measured: start -->\nold\n<!-- measured: end -->\nafter\n")
    write_card(card, "new")
    assert card.read_text() == "before\n<!-- measured: start -->\nnew\n<!-- measured: end -->\nafter\n"


# --- files ----------------------------------------------------------------------------------------------------


def test_saving_and_loading_keeps_every_weight(tmp_path: Path) -> None:
    model = fresh_model()
    save_model(model, tmp_path)
    build_processor(shipped().processor.tokenizer).save_pretrained(tmp_path)
    loaded = DemoVlm.load(tmp_path).model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(torch.bfloat16), loaded[name]), name


def test_the_prompt_puts_the_image_first() -> None:
    processor = shipped().processor
    parts = [{"type": "text", "text": "Hello"}, {"type": "image"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    assert text == shipped().prompt("Hello") == "<|user|><image>Hello<|assistant|>"
    tokens = processor(images=[render(sample(1))], text=[text], return_tensors="pt")["input_ids"][0].tolist()
    assert tokens.count(processor.tokenizer.convert_tokens_to_ids(IMAGE)) == IMAGE_TOKENS


def test_shipped_files_are_small_and_complete() -> None:
    assert (WEIGHTS / "model.safetensors").stat().st_size < 8_000_000
    for name in ("config.json", "generation_config.json", "tokenizer.json", "README.md", "chat_template.jinja"):
        assert (WEIGHTS / name).exists(), name
    assert json.loads((WEIGHTS / "config.json").read_text())["architectures"] == ["LlavaForConditionalGeneration"]


@pytest.mark.slow
def test_the_shipped_weights_see() -> None:
    """A hundred held-out scenes: well above what a model that does not look could say, and near the card's numbers."""
    scenes = 100
    prompts = ("main_object", "background", "style", "nouns")
    said = ask(shipped(), scenes, HELDOUT_OFFSET + 5000, lambda _: None, prompts)
    truths = [truth(sample(HELDOUT_OFFSET + 5000 + index)) for index in range(scenes)]
    scores = headline(truths, said)
    assert scores["main shape"] >= 85, scores
    assert scores["main colour"] >= 90, scores
    assert scores["background"] >= 93, scores
    assert scores["style"] >= 90, scores
    assert scores["nouns exact"] >= 70, scores
    control = headline(truths[1:] + truths[:1], said)
    assert max(control.values()) < 30, control


def test_a_pool_of_another_size_is_rendered_anew(tmp_path: Path) -> None:
    sizes = [[len(array) for array in build_pool(tmp_path, scenes, processes=1)] for scenes in (3, 2, 3)]
    assert sizes == [[3, 3], [2, 2], [3, 3]]
    images, _ = build_pool(tmp_path, 3, processes=1)
    assert images.reshape(3, -1).any(axis=1).all()


@pytest.mark.parametrize("command", [[train.main, "--out", "out", "--tower"], [evaluate.main, "--weights"]])
def test_a_folder_without_a_model_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    program, *options = command
    with pytest.raises(SystemExit) as ended:
        program([*options, "nowhere"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("demo VLM: nowhere holds no model; name a folder that")


def test_a_smaller_model_speaks_about_what_the_shipped_tower_sees(tmp_path: Path) -> None:
    tokenizer = shipped().processor.tokenizer
    ids = tokenizer.convert_tokens_to_ids(IMAGE), tokenizer.eos_token_id, tokenizer.pad_token_id
    model = build_model(len(tokenizer), *ids, TextSize(width=64, layers=2))
    take_tower(WEIGHTS, tmp_path)
    with pytest.raises(ConfigError, match="was taken from other weights; give --tower again"):
        train_tower(tmp_path, *np.zeros((2, 0)), SeeSettings(), torch.device("cpu"))
    Speaker(tmp_path, model, torch.device("cpu")).save()
    with pytest.raises(ConfigError, match=r"width 64 and 2 layers, .*width 192 and 4 layers; give --text-width 64"):
        Speaker(tmp_path, build_model(len(tokenizer), *ids), torch.device("cpu"))
    save_model(model, tmp_path)
    build_processor(tokenizer).save_pretrained(tmp_path)

    smaller, pixels = DemoVlm.load(tmp_path), picture(3).to(torch.bfloat16)
    assert smaller.model.config.text_config.hidden_size == 64
    assert sum(p.numel() for p in smaller.model.parameters()) < sum(p.numel() for p in shipped().model.parameters())
    towers = [vlm.model.model.vision_tower for vlm in (smaller, shipped())]
    torch.testing.assert_close(*(patch_tokens(tower, pixels) for tower in towers))
