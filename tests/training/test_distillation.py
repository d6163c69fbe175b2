"""Self-distillation: the term by its formula, what teacher and student see, and runs that are taught."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.stops import StoppedError, stoppable
from tests.training.loss_references import assert_same, embeddings, everything, served_vectors, value
from tests.training.test_batches import assert_equal, make
from tests.training.test_gradients import ALONE, batch, of_term
from tests.training.test_saving import stopped_at
from tests.training.test_trainer import figures, run
from training.checkpoint import new_model
from training.config import RunConfig
from training.distillation_settings import Distillation
from training.ema import Ema
from training.gradients import Gradients
from training.losses import Features, gather, tiles
from training.losses.student_views import student_views
from training.views import DrawnViews

Recipe = Callable[..., dict[str, Any]]
SAMPLES, SLOTS = 5, 3


def distilled(
    leaves: tuple[Tensor, Tensor, Tensor],
    mask_BM: Tensor,
    part_BVM: Tensor,
    teacher: tuple[Tensor, Tensor, Tensor],
    crops: tuple[Tensor, ...] = (),
) -> Features:
    """Features of a step whose student has these views."""
    features = gather(leaves[0], leaves[1], mask_BM, leaves[2])
    v, t, s = (part.detach() for part in teacher)
    views = student_views(features, crops, part_BVM)
    return replace(features, views=views, teacher=gather(v, t, mask_BM, s))


def parts(mask_BM: Tensor, views: int, captions: int = 1) -> Tensor:
    """Of each image so many captions in each view."""
    drawn, rng = DrawnViews(Distillation(crops=views, captions=captions), *mask_BM.shape), np.random.default_rng(2)
    for b, has_M in enumerate(mask_BM):
        drawn.draw(b, 4, 4, has_M.nonzero().flatten().tolist(), rng)
    return drawn.made().part_BVM


def by_loops(
    image_NVD: Tensor, t: Tensor, s: Tensor, part_NVM: Tensor, teacher: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """The mean over views, directions and samples that have captions of sum q (log q - log p)."""
    taught, t_taught, s_taught = teacher
    have = [n for n in range(len(t)) if part_NVM[n].any()]
    mean_of: Callable[[Tensor], Tensor] = lambda rows: F.normalize(rows.mean(dim=0), dim=0)  # noqa: E731
    all_captions = part_NVM.any(dim=1)  # enough views that each caption is in one
    whole = [(served_vectors(taught)[n], mean_of(t_taught[n, all_captions[n]])) for n in have]
    losses = []
    for view in range(part_NVM.shape[1]):
        seen = [(image_NVD[n, view], mean_of(t[n, part_NVM[n, view]])) for n in have]
        for of_row, of_column in ((0, 1), (1, 0)):
            for student, wise in zip(seen, whole, strict=True):
                p = torch.stack([s * (student[of_row] @ other[of_column]) for other in seen]).log_softmax(0)
                q = torch.stack([s_taught * (wise[of_row] @ other[of_column]) for other in whole]).softmax(0)
                losses.append((q * (q.log() - p)).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("branches", [1, 3])
def test_the_term_is_its_formula(branches: int, tiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tiled:
        monkeypatch.setattr(tiles, "TILE_LOGITS", 10)
        monkeypatch.setattr(tiles, "KEPT_LOGITS", 0)
    mask = everything(SLOTS, SAMPLES)
    mask[1, 0] = mask[3, 1:] = False
    mask[2] = False  # an image that did not decode
    leaves, teacher = embeddings(1, SAMPLES, branches, SLOTS), embeddings(2, SAMPLES, branches, SLOTS)
    crops = tuple(embeddings(seed, SAMPLES, branches, 1)[0] for seed in range(3, 15))
    part = parts(mask, len(crops))
    assert torch.equal(part.any(dim=1), mask)
    image = torch.stack([served_vectors(crop) for crop in crops], dim=1)
    expected = by_loops(image, leaves[1], leaves[2], part, tuple(leaf.detach() for leaf in teacher))
    found = value("distillation", distilled(leaves, mask, part, teacher, crops))
    assert float(found.detach()) > 0.1
    assert_same(found, expected, (*leaves[1:], *crops, *teacher), 1e-9)  # none for the teacher


def test_a_student_that_agrees_is_left_alone() -> None:
    """One view of all captions, from the step's own crop, and a teacher of the same numbers."""
    v, t, s = embeddings(4, SAMPLES, 2, SLOTS)
    mask = everything(SLOTS, SAMPLES)
    mask[0, 1] = False
    loss = value("distillation", distilled((v, t, s), mask, mask[:, None], (v, t, s)))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    for grad in torch.autograd.grad(loss, (v, t, s)):
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


def test_two_images_by_hand() -> None:
    """The student finds both captions alike in both images; its teacher is sure at odds of 3 to 1."""
    v = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64)
    t = torch.tensor([[[0.6, 0.8]], [[0.6, 0.8]]], dtype=torch.float64, requires_grad=True)
    t_teacher = v.clone()
    everybody, s = everything(1, 2), torch.tensor(1.0).double()
    teacher = (v, t_teacher, torch.tensor(3.0).double().log())
    # To text p = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2. To images p is softmax(0.6, 0.8), right in one case of two.
    p = torch.tensor([0.6, 0.8], dtype=torch.float64).log_softmax(0)
    entropy = 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    to_text = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    to_images = entropy - 0.5 * (0.75 + 0.25) * float(p[0] + p[1])
    loss = value("distillation", distilled((v, t, s), everybody, everybody[:, None], teacher))
    assert float(loss.detach()) == pytest.approx((to_text + to_images) / 2, rel=1e-12)


def test_following_the_gradient_brings_the_student_to_its_teacher() -> None:
    v, t, s = embeddings(6, SAMPLES, 2, SLOTS)
    mask, teacher = everything(SLOTS, SAMPLES), embeddings(7, SAMPLES, 2, SLOTS)
    optimizer, losses = torch.optim.Adam([v, t], lr=0.05), []
    for _ in range(80):
        unit = F.normalize(v, dim=-1), F.normalize(t, dim=-1), s
        loss = value("distillation", distilled(unit, mask, mask[:, None], teacher))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.02 * losses[0]


def test_a_step_without_a_teacher_says_what_to_set() -> None:
    v, t, s = embeddings(8, 2, 1, 1)
    with pytest.raises(ConfigError, match=r"distillation needs a teacher; set train\.ema"):
        value("distillation", gather(v, t, everything(1, 2), s))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": None}, "distillation has the averaged weights as its teacher; set ema, such as 0.999"),
        ({"losses": {"distillation": 1.0}}, "distillation follows a teacher that other terms have to teach"),
        ({"distillation": {"crop_scale": [0.5, 0.1]}}, "'distillation.crop_scale'.*smallest <= largest"),
        (
            {
                "cache_features": True, "freeze": ["image"], "warm_start": "a.pt", "branches": 1,
                "crop_scale": [1, 1], "distillation": {"crops": 1}, "losses": {"o2m": 1.0, "distillation": 1.0},
            },
            "cache_features needs embeddings that stay the same, but distillation crops each picture anew",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(recipe: Recipe, changes: dict[str, Any], message: str) -> None:
    settings = recipe(losses={"m2m": 1.0, "distillation": 1.0}, ema=0.9)
    build(RunConfig, settings)
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, {**settings, **changes})


def test_views_are_drawn_with_the_batch_and_change_nothing_else_in_it(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(
        losses={"m2m": 1.0, "distillation": 1.0},
        ema=0.9,
        distillation={"crops": 2, "captions": 2, "crop_scale": [0.2, 0.3]},
    )
    batches, without = make(tmp_path, settings), make(tmp_path / "without", recipe())
    shares = [make(tmp_path / f"{rank}", settings, rank=rank, ranks=2) for rank in range(2)]
    changed = False
    for step in range(9):
        made = batches[step]
        assert_equal(made, without[step])
        assert without[step].views is None
        assert made.views is not None
        of_ranks = [views for of_rank in shares if (views := of_rank[step].views)]
        for whole, cut in zip(made.views, zip(*of_ranks, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(cut))
        part_BVM, mask_B1M = made.views.part_BVM, made.mask_BM[:, None]
        assert not (part_BVM & ~mask_B1M).any()
        assert torch.equal(part_BVM.sum(dim=2), mask_B1M.sum(dim=2).clamp(max=2).expand(-1, 2))
        area = made.views.crop_BK4[..., 2] * made.views.crop_BK4[..., 3]
        assert ((area > 0.199) & (area < 0.301)).all()
        assert torch.equal(made.views.whole_B4, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(6, 4))  # of mild aspects
        assert made.pictures == 3 * 6
        changed = changed or not torch.equal(part_BVM[:, 0], part_BVM[:, 1])
    assert changed


@pytest.mark.parametrize("crops", [0, 2])
def test_other_terms_see_what_they_would_see_without_it(recipe: Recipe, crops: int) -> None:
    terms = {"served": 1.0, "text_conditioned": 1.0}
    losses = []
    for weights in (terms, {**terms, "distillation": 1.0}):
        config = build(
            RunConfig, {**of_term(recipe, "distillation", distillation={"crops": crops}), "losses": weights}
        )
        torch.manual_seed(3)
        model = new_model(config)
        _, loss = Gradients(model, config, ALONE, Ema(model, 0.9).model)(batch(ALONE, config))
        losses.append(loss.terms)
    for term in terms:
        torch.testing.assert_close(losses[1][term], losses[0][term], rtol=1e-5, atol=1e-6)
    assert float(losses[1]["distillation"]) > 0


def test_a_run_is_taught_and_goes_on_after_a_stop(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16, with micro-batches and crops; the loss of a student that its teacher leads stays small."""
    settings = recipe(
        branches=1,
        losses={"o2m": 1.0, "distillation": 1.0},
        ema=0.9,
        distillation={"crops": 1},
        precision="bf16",
        micro_batch=4,
    )
    undisturbed = run(tmp_path / "undisturbed", settings)
    rows = figures(undisturbed.metrics)
    assert all(abs(row["loss"] - row["loss/o2m"] - row["loss/distillation"]) < 1e-4 for row in rows)
    assert all(row["loss/distillation"] > 0 for row in rows)
    with monkeypatch.context() as patched, stoppable():
        stopped_at(4, patched)
        with pytest.raises(StoppedError):
            run(tmp_path, settings)
    again = run(tmp_path, settings)
    assert figures(again.metrics) == rows
    for name, weight in undisturbed.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
