"""Loss terms against open_clip's losses and against plain loops written from the formulas."""

from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from tests.training import loss_references as plain
from tests.training.loss_references import assert_same, embeddings, everything, masked_batches, value
from training.losses import TERMS, gather, matching, weighted_sum

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
SOFTMAX_TERMS = ["o2o", "o2m", "m2m", "free_matching", "free_matching_soft", "free_matching_balanced", "served"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("term", [*SOFTMAX_TERMS, "multi_positive", "best_branch"])
def test_one_branch_one_caption_is_open_clips_loss(term: str, dtype: torch.dtype) -> None:
    raw_v, raw_t, s = embeddings(1, 9, 1, 1, dtype)
    # Through the towers' normalisation: the served term normalises again, which only changes what that projects away.
    v, t = F.normalize(raw_v, dim=-1), F.normalize(raw_t, dim=-1)
    expected = open_clip.ClipLoss()(v[:, 0], t[:, 0], s)
    assert_same(value(term, gather(v, t, everything(1, 9), s)), expected, (raw_v, raw_t, s), TOLERANCE[dtype])


def test_one_branch_one_caption_is_siglips_loss_at_its_bias() -> None:
    raw_v, raw_t, s = embeddings(1, 9, 1, 1)
    v, t = F.normalize(raw_v, dim=-1), F.normalize(raw_t, dim=-1)
    bias = -torch.tensor(8.0).double().log()
    expected = SigLipLoss()(v[:, 0], t[:, 0], s, bias)
    assert_same(value("sigmoid", gather(v, t, everything(1, 9), s)), expected, (raw_v, raw_t, s), 1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("H", "M"), [(5, 5), (5, 3), (3, 5), (5, 1), (1, 5), (1, 1)])
def test_free_matching_is_the_papers_loop(H: int, M: int, dtype: torch.dtype) -> None:
    v, t, s = embeddings(H * 10 + M, 7, H, M, dtype)
    expected = plain.contrast(v, t, everything(M, 7), s, plain.chosen(v, t, s))
    found = value("free_matching", gather(v, t, everything(M, 7), s))
    assert_same(found, expected, (v, t, s), TOLERANCE[dtype])


@settings(max_examples=40, deadline=None)
@given(masked_batches())
def test_softmax_terms_equal_loops_whatever_is_missing(batch: tuple[int, int, int, int, Tensor]) -> None:
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    mean = plain.served_vectors(v)[:, None]
    balanced_NMH = matching.balanced(gather(v, t, mask, s).of_slots(slice(H if M >= H else 0, None)))
    kept = plain.chosen(v, t, s)
    first_choosing = H if M >= H else 0
    expected = {
        "free_matching": plain.contrast(v, t, mask, s, plain.chosen(v, t, s)),
        "free_matching_soft": plain.contrast(v, t, mask, s, plain.chosen(v, t, s, soft=True)),
        "free_matching_balanced": plain.contrast(
            v, t, mask, s, lambda n, m: kept(n, m) if m < first_choosing else balanced_NMH[n, m - first_choosing]
        ),
        "served": plain.contrast(mean, t, mask, s, lambda _n, _m: torch.ones(1).double()),
    }
    if H == M:
        expected["m2m"] = plain.contrast(v, t, mask, s, lambda _n, m: plain.one_hot(m, H))
    if H == 1:
        expected["o2m"] = plain.contrast(v, t, mask, s, lambda _n, _m: torch.ones(1).double())
    for term, loss in expected.items():
        assert_same(value(term, gather(v, t, mask, s)), loss, (v, t, s), 1e-6)


@settings(max_examples=40, deadline=None)
@given(masked_batches())
def test_other_terms_equal_loops_whatever_is_missing(batch: tuple[int, int, int, int, Tensor]) -> None:
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    features = gather(v, t, mask, s)
    assert_same(value("multi_positive", features), plain.multi_positive(v, t, mask, s), (v, t, s), 1e-6)
    assert_same(value("sigmoid", features), plain.sigmoid(v, t, mask, s), (v, t, s), 1e-6)
    assert_same(value("best_branch", features), plain.best_branch(v, t, mask, s), (v, t, s), 1e-6)
    if H > 1:
        near = F.normalize(v + 2.0, dim=-1)  # near enough to each other for the hinge
        loss = value("diversity", gather(near, t, mask, s))
        assert_same(loss, plain.diversity(near, mask), (v,), 1e-6)
        assert (loss > 0) == mask.any()


def test_o2o_takes_each_samples_first_caption() -> None:
    v, t, s = embeddings(3, 4, 1, 3)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    first = torch.stack([t[0, 0], t[1, 1], t[2, 2]])
    expected = open_clip.ClipLoss()(v[:3, 0], first, s)
    assert_same(value("o2o", gather(v, t, mask, s)), expected, (v, t, s), 1e-6)


def test_branches_that_differ_enough_cost_nothing() -> None:
    v, t, s = embeddings(9, 5, 3, 3)
    loss = value("diversity", gather(v, t, everything(3, 5), s))
    assert loss == 0
    assert not torch.autograd.grad(loss, v)[0].any()


def test_the_total_is_the_weighted_sum_of_the_logged_terms() -> None:
    v, t, s = embeddings(5, 6, 2, 2)
    loss = weighted_sum(gather(v, t, everything(2, 6), s), {"m2m": 2.0, "served": 0.25})
    assert set(loss.terms) == {"m2m", "served"}
    torch.testing.assert_close(loss.total, 2.0 * loss.terms["m2m"] + 0.25 * loss.terms["served"])
    assert not loss.terms["m2m"].requires_grad


def test_slots_are_logged_by_themselves() -> None:
    """A slot's loss is that of a batch with this slot alone; a slot nobody has is no number."""
    v, t, s = embeddings(6, 6, 3, 3)
    mask = everything(3, 6)
    mask[:, 1], mask[0, 2] = False, False
    slot_M = weighted_sum(gather(v, t, mask, s), {"m2m": 1.0}).by_slot["m2m"]
    for m in (0, 2):
        alone = value("m2m", gather(v[:, m : m + 1], t[:, m : m + 1], mask[:, m : m + 1], s))
        torch.testing.assert_close(slot_M[m], alone.detach())
    assert slot_M[1].isnan()


def test_low_precision_embeddings_are_compared_in_float32() -> None:
    v, t, s = embeddings(6, 4, 1, 1, torch.float32)
    features = gather(v.bfloat16(), t.bfloat16(), everything(1, 4), s)
    assert features.image_BHD.dtype == features.text_NMD.dtype == torch.float32


@pytest.mark.parametrize(
    ("term", "branches", "message"),
    [("o2o", 3, "has 3"), ("o2m", 3, "has 3"), ("m2m", 3, "3 branches and 2 slots"), ("diversity", 1, "has one")],
)
def test_terms_name_the_counts_they_cannot_work_with(term: str, branches: int, message: str) -> None:
    v, t, s = embeddings(7, 4, branches, 2)
    with pytest.raises(ConfigError, match=message):
        value(term, gather(v, t, everything(2, 4), s))


def test_every_term_is_in_the_docs() -> None:
    rows = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf8").splitlines()
    assert {row.split("`")[1] for row in rows if row.startswith("| `")} >= set(TERMS)
