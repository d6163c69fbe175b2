"""What holds of every loss term: symmetries, missing captions, derivatives, precision, compilation."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.loss_references import embeddings, everything, masked_batches, value
from training.losses import gather, tiles, weighted_sum

TERMS_OF_ANY_H = [
    "free_matching",
    "free_matching_soft",
    "free_matching_balanced",
    "served",
    "best_branch",
    "multi_positive",
    "sigmoid",
    "diversity",
]


def usable(branches: int, slots: int) -> list[str]:
    """The terms that work with so many branches and slots."""
    terms = [term for term in TERMS_OF_ANY_H if branches > 1 or term != "diversity"]
    return terms + ["m2m"] * (branches == slots) + ["o2o", "o2m"] * (branches == 1)


def loss_and_gradients(term: str, v: Tensor, t: Tensor, mask: Tensor, s: Tensor) -> tuple[Tensor, ...]:
    loss = value(term, gather(v, t, mask, s))
    return loss, *torch.autograd.grad(loss, (v, t, s), allow_unused=True, materialize_grads=True)


@settings(max_examples=30, deadline=None)
@given(masked_batches(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(batch: tuple[int, int, int, int, Tensor], random: Random) -> None:
    """Permuting the batch leaves the loss as it is and permutes the gradients."""
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(random.randrange(1000)))
    for term in usable(H, M):
        loss, grad_v, grad_t, grad_s = loss_and_gradients(term, v, t, mask, s)
        other = loss_and_gradients(term, v[order], t[order], mask[order], s)
        wanted = loss, grad_v[order], grad_t[order], grad_s
        torch.testing.assert_close(other, wanted, rtol=1e-8, atol=1e-8, msg=term)


@settings(max_examples=30, deadline=None)
@given(masked_batches(), st.randoms(use_true_random=False))
def test_the_order_of_slots_does_not_matter(batch: tuple[int, int, int, int, Tensor], random: Random) -> None:
    """Slots, with their branches where branches belong to slots. O2O depends on it: it takes the first."""
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(random.randrange(1000)))
    for term in set(usable(H, M)) - {"o2o"}:
        tied = M >= H and H > 1 and (term == "m2m" or "matching" in term)
        if tied and M > H:
            continue  # only the first H slots keep a branch: to permute them is to choose others
        branches = order if tied else torch.arange(H)
        loss, grad_v, grad_t, grad_s = loss_and_gradients(term, v, t, mask, s)
        other = loss_and_gradients(term, v[:, branches], t[:, order], mask[:, order], s)
        wanted = loss, grad_v[:, branches], grad_t[:, order], grad_s
        torch.testing.assert_close(other, wanted, rtol=1e-8, atol=1e-8, msg=term)


@settings(max_examples=30, deadline=None)
@given(masked_batches())
def test_a_missing_caption_moves_nothing(batch: tuple[int, int, int, int, Tensor]) -> None:
    """What lies in the place of a missing caption has no influence, and gets no gradient."""
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    other = t.detach().masked_fill(~mask[:, :, None], 30.0).requires_grad_()
    for term in usable(H, M):
        clean, noisy = (loss_and_gradients(term, v, text, mask, s) for text in (t, other))
        torch.testing.assert_close(noisy, clean, rtol=1e-8, atol=1e-10, msg=term)
        assert not clean[2][~mask].any()
        assert all(torch.isfinite(part).all() for part in clean)


def test_a_sample_without_captions_is_as_if_left_out() -> None:
    v, t, s = embeddings(11, 6, 3, 3)
    mask = everything(3, 6)
    mask[2] = False
    rest = torch.tensor([0, 1, 3, 4, 5])
    for term in usable(3, 3):
        with_it = loss_and_gradients(term, v, t, mask, s)
        without = loss_and_gradients(term, v[rest], t[rest], mask[rest], s)
        torch.testing.assert_close((with_it[0], with_it[1][rest]), (without[0], without[1]), msg=term)
        assert not with_it[1][2].any()


@pytest.mark.parametrize(("H", "M"), [(3, 3), (3, 2), (2, 3), (1, 2)])
def test_gradients_by_finite_differences(H: int, M: int) -> None:
    """The choice of hard matching is constant around these points, so its derivative is that of what was chosen."""
    v, t, s = embeddings(21, 4, H, M)
    mask = everything(M, 4)
    mask[1, 0] = False
    for term in set(usable(H, M)) - {"free_matching_soft"}:  # whose weights are constants by definition
        assert torch.autograd.gradcheck(lambda v, t, s, term=term: value(term, gather(v, t, mask, s)), (v, t, s))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(1.0, 100.0))
def test_bfloat16_embeddings_move_the_loss_by_no_more_than_their_rounding(seed: int, scale: float) -> None:
    """Numbers round by 2⁻⁹ of themselves, so a cosine moves by 2 · 2⁻⁹ + 2⁻¹⁸ at most, a cross entropy by two."""
    v, t, _ = (leaf.detach() for leaf in embeddings(seed, 8, 3, 3, torch.float32))
    s = torch.tensor(scale)
    bound = 2 * scale * (2 * 2**-9 + 2**-18) + 1e-4  # the last for float32 itself
    for term in ("m2m", "free_matching_soft"):
        exact = value(term, gather(v, t, everything(3, 8), s))
        rounded = value(term, gather(v.bfloat16(), t.bfloat16(), everything(3, 8), s))
        assert abs(float(exact - rounded)) <= bound, term


@pytest.mark.slow
def test_compiled_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "KEPT_LOGITS", 0)
    monkeypatch.setattr(tiles, "TILE_LOGITS", 40)
    v, t, s = embeddings(31, 6, 3, 3, torch.float32)
    mask = everything(3, 6)
    mask[0, 1] = False
    weights = dict.fromkeys(("m2m", "served", "multi_positive", "sigmoid", "diversity"), 1.0)

    def total(v: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return weighted_sum(gather(v, t, mask, s), weights).total

    torch.compiler.reset()
    losses = [total(v, t, s), torch.compile(total)(v, t, s)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad(loss, (v, t, s)) for loss in losses]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)
