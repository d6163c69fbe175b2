"""Micro-batches have the gradients of the whole batch, with every loss term, on one rank and on two."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import build
from training.batches import Batch
from training.checkpoint import new_model
from training.config import RunConfig
from training.distillation_settings import Distillation
from training.ema import Ema
from training.gradients import Gradients
from training.index.frequencies import TokenFrequencies
from training.losses import TERMS
from training.ranks import Ranks
from training.token_head import TokenHead
from training.towers import VOCABULARY
from training.views import DrawnViews, Views

Recipe = Callable[..., dict[str, Any]]
IMAGES, SLOTS = 10, 3
ALONE = Ranks(0, 1, torch.device("cpu"))

RANK_PROGRAM = """
import sys, torch, torch.distributed as dist
from tests.training.test_gradients import gradients
from training.ranks import Ranks
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
ranks = Ranks(rank, 2, torch.device("cpu"))
found = {term: gradients(recipe, ranks) for term, recipe in torch.load(f"{folder}/recipes").items()}
torch.save(found, f"{folder}/found.{rank}")
dist.destroy_process_group()
"""


def batch(ranks: Ranks, config: RunConfig) -> Batch:
    """A rank's share of ten images; captions are missing, images share texts, and there are two length groups.

    Hard negatives are further texts, of an image's slots from the last on.
    """
    negatives = config.hard_negatives
    generator = torch.Generator().manual_seed(1)
    image_BCSS = torch.randint(0, 256, (IMAGES, 3, 36, 36), generator=generator, dtype=torch.uint8)
    has_text, tokens = [], []
    for texts in (SLOTS, negatives):
        has_text.append(torch.rand(IMAGES, texts, generator=generator) < 0.8)
        tokens.append(torch.randint(1, 49000, (IMAGES, texts, 7), generator=generator))
    has_text_BX, tokens_BML = torch.cat(has_text, dim=1), torch.cat(tokens, dim=1)
    tokens_BML[:, :, -1] = 49407
    tokens_BML[3::5, :, 4:] = torch.tensor([49407, 0, 0])  # two images have short texts, two others share theirs
    tokens_BML[1::5] = tokens_BML[::5]
    share = IMAGES // ranks.count
    own = slice(share * ranks.rank, share * (ranks.rank + 1))
    mask_BM, is_there_BN = has_text_BX[own].split([SLOTS, negatives], dim=1)
    places = torch.cat([mask_BM.flatten(), is_there_BN.flatten()])
    tokens_PL = torch.cat([tokens_BML[own, :SLOTS].flatten(0, 1), tokens_BML[own, SLOTS:].flatten(0, 1)])
    place_P = places.nonzero().flatten()
    text_TL, text_P = torch.unique(tokens_PL[place_P], dim=0, return_inverse=True)
    is_short_T = text_TL[:, -1] == 0
    place_T = torch.empty(len(text_TL), dtype=torch.long)
    place_T[torch.cat([is_short_T.nonzero(), (~is_short_T).nonzero()]).flatten()] = torch.arange(len(text_TL))
    groups = text_TL[is_short_T, :5], text_TL[~is_short_T]
    box_B4 = torch.tensor([[0.05, 0.0, 0.9, 0.95]]).expand(share, -1)
    slot_BN = (SLOTS - 1 - torch.arange(negatives)).expand(share, -1).masked_fill(~is_there_BN, -1)
    texts_of = groups, place_P, place_T[text_P]
    return Batch(
        0,
        image_BCSS[own],
        box_B4,
        *texts_of,
        mask_BM,
        (),
        views=drawn_views(config.distillation, has_text_BX[:, :SLOTS], own) if config.has_teacher else None,
        negative_slot_BN=slot_BN if negatives else None,
    )


def drawn_views(config: Distillation, mask_BM: Tensor, own: slice) -> Views:
    """A rank's share of what teacher and student see of ten images."""
    drawn, rng = DrawnViews(config, *mask_BM.shape), np.random.default_rng(4)
    for b, has_M in enumerate(mask_BM):
        drawn.draw(b, 40, 30, has_M.nonzero().flatten().tolist(), rng)
    return Views(*(of_all[own] for of_all in drawn.made()))


def gradients(recipe: dict[str, Any], ranks: Ranks = ALONE) -> tuple[float, dict[str, Tensor]]:
    """This rank's loss, and the gradient of every parameter."""
    config = build(RunConfig, recipe)
    torch.manual_seed(3)
    model = new_model(config).train()
    if config.has_token_head:
        model.token_head = TokenHead(24, TokenFrequencies(100, np.random.default_rng(0).integers(0, 99, VOCABULARY)))
    if config.activation_checkpointing:
        model.make_activations_again()
    if config.compile:
        model.compile_towers()
    with torch.no_grad():  # so that branches differ enough for every term
        for parameter in model.visual.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    teacher = Ema(model, config.ema).model if config.ema else None
    if teacher:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    _, loss = Gradients(model, config, ranks, teacher)(batch(ranks, config))
    assert teacher is None or all(parameter.grad is None for parameter in teacher.parameters())
    return float(loss.total.detach()), {
        name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()
    }


def of_term(recipe: Recipe, term: str, **changes: Any) -> dict[str, Any]:
    """A recipe with this term, and with `served` where it may not stand alone."""
    alone = ("diversity", "text_conditioned", "tokens", "distillation")
    losses = {term: 1.0} | ({"served": 0.5} if term in alone else {})
    if term == "distillation":
        changes = {"ema": 0.9, "distillation": {"crops": 2, "captions": 2, "temperature": 0.7}, **changes}
    return recipe(losses=losses, branches=1 if term in ("o2o", "o2m") else None, global_batch=IMAGES, **changes)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    assert largest > 0
    for name, grad in wanted.items():
        torch.testing.assert_close(
            found[name], grad, rtol=1e-5, atol=1e-5 * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("term", TERMS)
def test_micro_batches_have_the_gradients_of_the_whole_batch(recipe: Recipe, term: str) -> None:
    wanted_loss, wanted = gradients(of_term(recipe, term))
    found_loss, found = gradients(of_term(recipe, term, micro_batch=4))  # pieces of 4, 3 and 3 images
    assert found_loss == pytest.approx(wanted_loss, rel=1e-6)
    assert_same(found, wanted)


def test_micro_batches_with_hard_negatives_too(recipe: Recipe) -> None:
    wanted_loss, wanted = gradients(of_term(recipe, "m2m", hard_negatives=2))
    found_loss, found = gradients(of_term(recipe, "m2m", hard_negatives=2, micro_batch=4))
    assert found_loss == pytest.approx(wanted_loss, rel=1e-6)
    assert wanted_loss > gradients(of_term(recipe, "m2m"))[0]
    assert_same(found, wanted)


def test_two_ranks_with_micro_batches_have_the_gradients_of_one_process(tmp_path: Path, recipe: Recipe) -> None:
    recipes = {term: of_term(recipe, term, micro_batch=2) for term in TERMS}
    recipes["distillation at once"] = of_term(recipe, "distillation")
    torch.save(recipes, tmp_path / "recipes")
    started = [subprocess.Popen([sys.executable, "-c", RANK_PROGRAM, str(rank), str(tmp_path)]) for rank in range(2)]
    wanted = {term: gradients(of_term(recipe, term)) for term in TERMS}
    wanted["distillation at once"] = wanted["distillation"]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    found = [torch.load(tmp_path / f"found.{rank}") for rank in range(2)]
    for term, (loss, grads) in wanted.items():
        assert sum(rank[term][0] for rank in found) / 2 == pytest.approx(loss, rel=1e-5)
        for rank in found:
            assert_same(rank[term][1], grads)


@pytest.mark.parametrize("kind", ["cls", "mlp", "query"])
def test_activations_made_again_give_the_same_gradients(
    recipe: Recipe, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    norm = torch.nn.LayerNorm.forward

    def counted(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
        calls.append("norm")
        return norm(layer, x)

    monkeypatch.setattr("open_clip.transformer.LayerNorm.forward", counted)
    changes = {"branch_kind": kind, "branch_blocks": 1}
    wanted = gradients(of_term(recipe, "m2m", **changes))[1]
    once = len(calls)
    assert_same(gradients(of_term(recipe, "m2m", activation_checkpointing=True, **changes))[1], wanted)
    # Two layers a block: of the image tower's two blocks the last is cheap, and the texts come in two length groups.
    assert len(calls) == once + (once + 2 * (1 + 2 * 2))


@pytest.mark.slow
def test_compiled_towers_give_the_same_gradients(recipe: Recipe) -> None:
    wanted = gradients(of_term(recipe, "m2m"))[1]
    assert_same(gradients(of_term(recipe, "m2m", compile=True))[1], wanted)


def test_a_micro_batch_as_large_as_the_share_costs_no_second_pass(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    encode = Gradients._encode

    def counted(*given: Any) -> Any:
        passes.append(1)
        return encode(*given)

    monkeypatch.setattr(Gradients, "_encode", counted)
    for micro, count in ((None, 1), (IMAGES, 1), (100, 1), (5, 4)):
        passes.clear()
        gradients(of_term(recipe, "served", micro_batch=micro))
        assert len(passes) == count
