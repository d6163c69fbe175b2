"""Loss terms against open_clip's loss and against plain loops written from the formulas (PAPER 1.3)."""

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.losses import TERMS, Features, gather, weighted_sum

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def embeddings(
    seed: int, samples: int, branches: int, slots: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Leaf tensors v (N, H, D), t (N, M, D), unit norm, and a scale."""
    generator = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        x = torch.randn(samples, count, 12, generator=generator, dtype=torch.float64)
        return F.normalize(x, dim=-1).to(dtype).requires_grad_()

    return unit(branches), unit(slots), torch.tensor(7.5, dtype=dtype, requires_grad=True)


def value(term: str, features: Features) -> Tensor:
    return TERMS[term](features).mean


def everything(slots: int, samples: int) -> Tensor:
    return torch.ones(samples, slots, dtype=torch.bool)


def plain_contrast(v: Tensor, t: Tensor, mask: Tensor, s: Tensor, free: bool, single: bool = False) -> Tensor:
    """PAPER 1.3 as a loop over slots and rows; a slot's batch is the samples that have it."""
    H, M = v.shape[1], t.shape[1]
    losses = []
    for m in range(M):
        have = [n for n in range(len(v)) if mask[n, m]]
        branch = {}
        for n in have:
            own = torch.stack([v[n, h] @ t[n, m] for h in range(H)])
            branch[n] = 0 if single else m if (m < H and M >= H) or not free else int(own.argmax())
        for n in have:
            row = torch.stack([s * (v[n, branch[n]] @ t[k, m]) for k in have])
            column = torch.stack([s * (t[n, m] @ v[k, branch[n]]) for k in have])
            own = have.index(n)
            losses.append((torch.logsumexp(row, 0) - row[own] + torch.logsumexp(column, 0) - column[own]) / 2)
    return torch.stack(losses).mean() if losses else 0.0 * v.sum()


def assert_same(loss: Tensor, expected: Tensor, leaves: tuple[Tensor, ...], rtol: float) -> None:
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=rtol)
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True)
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("term", ["o2o", "o2m", "m2m", "free_matching", "served"])
def test_one_branch_one_caption_is_open_clips_loss(term: str, dtype: torch.dtype) -> None:
    raw_v, raw_t, s = embeddings(1, 9, 1, 1, dtype)
    # Through the towers' normalisation: the served term normalises again, which only changes what that projects away.
    v, t = F.normalize(raw_v, dim=-1), F.normalize(raw_t, dim=-1)
    expected = open_clip.ClipLoss()(v[:, 0], t[:, 0], s)
    assert_same(value(term, gather(v, t, everything(1, 9), s)), expected, (raw_v, raw_t, s), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("H", "M"), [(5, 5), (5, 3), (3, 5), (5, 1), (1, 5), (1, 1)])
def test_free_matching_is_the_papers_loop(H: int, M: int, dtype: torch.dtype) -> None:
    v, t, s = embeddings(H * 10 + M, 7, H, M, dtype)
    expected = plain_contrast(v, t, everything(M, 7), s, free=True)
    found = value("free_matching", gather(v, t, everything(M, 7), s))
    assert_same(found, expected, (v, t, s), TOLERANCE[dtype])


@st.composite
def masked_batches(draw: st.DrawFn) -> tuple[int, int, int, int, Tensor]:
    seed, samples = draw(st.integers(0, 1000)), draw(st.integers(1, 5))
    branches, slots = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    bits = draw(st.lists(st.booleans(), min_size=samples * slots, max_size=samples * slots))
    return seed, samples, branches, slots, torch.tensor(bits).view(samples, slots)


@settings(max_examples=60, deadline=None)
@given(masked_batches())
def test_terms_equal_loops_whatever_is_missing(batch: tuple[int, int, int, int, Tensor]) -> None:
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    features = gather(v, t, mask, s)
    assert_same(value("free_matching", features), plain_contrast(v, t, mask, s, free=True), (v, t, s), 1e-6)
    mean = F.normalize(v.mean(dim=1, keepdim=True), dim=-1)
    expected = plain_contrast(mean, t, mask, s, free=False, single=True)
    assert_same(value("served", features), expected, (v, t, s), 1e-6)
    if H == M:
        assert_same(value("m2m", features), plain_contrast(v, t, mask, s, free=False), (v, t, s), 1e-6)
    if H == 1:
        assert_same(value("o2m", features), plain_contrast(v, t, mask, s, free=False, single=True), (v, t, s), 1e-6)


def test_o2o_takes_each_samples_first_caption() -> None:
    v, t, s = embeddings(3, 4, 1, 3)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    first = torch.stack([t[0, 0], t[1, 1], t[2, 2]])
    expected = open_clip.ClipLoss()(v[:3, 0], first, s)
    assert_same(value("o2o", gather(v, t, mask, s)), expected, (v, t, s), 1e-6)


def test_a_missing_caption_moves_nothing() -> None:
    """What lies in the place of a missing caption has no influence, not even as NaN."""
    v, t, s = embeddings(4, 5, 3, 3)
    mask = everything(3, 5)
    mask[2, 1] = mask[4] = False
    clean = weighted_sum(gather(v, t, mask, s), {"m2m": 1.0, "served": 0.5}).total
    noisy = t.detach().masked_fill(~mask[:, :, None], 1e3)
    other = weighted_sum(gather(v, noisy, mask, s), {"m2m": 1.0, "served": 0.5}).total
    torch.testing.assert_close(clean, other, rtol=1e-12, atol=0)
    assert torch.isfinite(torch.autograd.grad(clean, t)[0]).all()


def test_the_total_is_the_weighted_sum_of_the_logged_terms() -> None:
    v, t, s = embeddings(5, 6, 2, 2)
    loss = weighted_sum(gather(v, t, everything(2, 6), s), {"m2m": 2.0, "served": 0.25})
    assert set(loss.terms) == {"m2m", "served"}
    torch.testing.assert_close(loss.total, 2.0 * loss.terms["m2m"] + 0.25 * loss.terms["served"])
    assert not loss.terms["m2m"].requires_grad


def test_low_precision_embeddings_are_compared_in_float32() -> None:
    v, t, s = embeddings(6, 4, 1, 1, torch.float32)
    features = gather(v.bfloat16(), t.bfloat16(), everything(1, 4), s)
    assert features.image_BHD.dtype == features.text_NMD.dtype == torch.float32


@pytest.mark.parametrize("term", ["o2o", "o2m", "m2m"])
def test_terms_name_the_counts_they_cannot_work_with(term: str) -> None:
    v, t, s = embeddings(7, 4, 3, 2)
    with pytest.raises(ConfigError, match=r"3 branches|has 3"):
        value(term, gather(v, t, everything(2, 4), s))
