"""Who chooses whom: hard and soft weights, and branches that are used alike whatever the captions would like."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from tests.training.loss_references import embeddings, everything, masked_batches
from training.losses import Features, gather
from training.losses.matching import balanced, branch_prices, choosing_slots, hard, soft


@settings(max_examples=40, deadline=None)
@given(masked_batches())
def test_weights_of_a_caption_sum_to_one_and_carry_no_gradient(batch: tuple[int, int, int, int, Tensor]) -> None:
    seed, samples, H, M, mask = batch
    v, t, s = embeddings(seed, samples, H, M)
    for match in (hard, soft, balanced):
        weight_BMH = match(gather(v, t, mask, s))
        assert weight_BMH.shape == (samples, M, H)
        torch.testing.assert_close(weight_BMH.sum(dim=2), torch.ones(samples, M).double())
        assert not weight_BMH.requires_grad


@pytest.mark.parametrize(("H", "M", "choosing"), [(3, 3, []), (2, 4, [2, 3]), (4, 2, [0, 1]), (1, 2, [1])])
def test_slots_beyond_the_branches_choose(H: int, M: int, choosing: list[int]) -> None:
    v, t, s = embeddings(0, 2, H, M)
    assert list(range(M))[choosing_slots(gather(v, t, everything(M, 2), s))] == choosing


def wanted(images: int, branches: int, bonus: float, seed: int = 0) -> Features:
    """One caption an image; all of them are nearest to the first branch, by a margin of about `bonus`."""
    generator = torch.Generator().manual_seed(seed)
    v = F.normalize(torch.randn(images, branches, 16, generator=generator), dim=-1)
    t = torch.randn(images, 1, 16, generator=generator) * 0.2 + bonus * v[:, :1]
    return gather(v, F.normalize(t, dim=-1), everything(1, images), torch.tensor(20.0))


@pytest.mark.parametrize("bonus", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("branches", [2, 5, 8])
def test_balanced_matching_uses_all_branches_alike(branches: int, bonus: float) -> None:
    features = wanted(400, branches, bonus)
    share_H = balanced(features).mean(dim=(0, 1))
    assert (share_H - 1 / branches).abs().max() < 0.25 / branches
    if bonus == 1.0:
        assert hard(features).mean(dim=(0, 1))[0] > 0.9


def test_balanced_matching_gives_what_it_can() -> None:
    """Where equal use is what captions want anyway, nothing is changed."""
    v = F.normalize(torch.randn(60, 3, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    best = torch.arange(60) % 3
    t = v[torch.arange(60), best][:, None]
    features = gather(v, t, everything(1, 60), torch.tensor(10.0))
    assert torch.equal(balanced(features).argmax(dim=2)[:, 0], best)


def test_missing_captions_have_no_say_in_prices() -> None:
    features = wanted(100, 4, 0.5)
    similarity_KH = torch.einsum("nhd,nd->nh", features.image_NHD, features.text_NMD[:, 0])
    noise = torch.rand(30, 4, generator=torch.Generator().manual_seed(2))
    present = torch.cat([torch.ones(100), torch.zeros(30)]).bool()
    with_missing = branch_prices(torch.cat([similarity_KH, noise]), present)
    torch.testing.assert_close(with_missing, branch_prices(similarity_KH, torch.ones(100).bool()))
    assert torch.isfinite(branch_prices(noise, torch.zeros(30).bool())).all()


def test_soft_matching_is_hard_in_the_limit() -> None:
    v, t, _ = embeddings(3, 6, 4, 2)
    features = gather(v, t, everything(2, 6), torch.tensor(1e4).double())
    torch.testing.assert_close(soft(features), hard(features), atol=1e-4, rtol=0)
