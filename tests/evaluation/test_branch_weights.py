"""Learnt weights of branches: they find the branch that knows, and never answer a query that they have seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation import branch_weights
from evaluation.both_ways import both_ways
from evaluation.retrieval import Relevance


def task(images: int = 120, branches: int = 4, captions: int = 2) -> tuple[Tensor, Tensor, Relevance]:
    """Branch 1 is near its image's texts, the others are noise."""
    generator = torch.Generator().manual_seed(0)
    branch_NHD = F.normalize(torch.randn(images, branches, 32, generator=generator), dim=-1)
    noise_TD = torch.randn(images * captions, 32, generator=generator)
    text_TD = F.normalize(branch_NHD[:, 1].repeat_interleave(captions, dim=0) + 0.2 * noise_TD, dim=-1)
    image_T = np.repeat(np.arange(images), captions)
    return branch_NHD, text_TD, Relevance(np.arange(len(text_TD)), image_T, len(text_TD), images)


def test_weights_find_the_branch_that_knows() -> None:
    branch_NHD, text_TD, asked = task()
    weight_H = branch_weights.fit(branch_NHD, text_TD, asked, np.full(120, True), np.full(240, True), seed=0)
    assert weight_H.argmax() == 1
    assert weight_H[1] > 0.8
    assert (weight_H >= 0).all()
    torch.testing.assert_close(weight_H.sum(), torch.tensor(1.0))
    served_NGD = F.normalize(branch_NHD.mean(dim=1, keepdim=True), dim=-1)
    for learnt, served in zip(
        branch_weights.cross_fitted(branch_NHD, text_TD, asked, seed=0),
        both_ways(served_NGD, text_TD, asked),
        strict=True,
    ):
        assert learnt.best().hits([1])[1].mean() > served.best().hits([1])[1].mean() + 0.1


def test_each_half_is_answered_by_weights_of_the_other() -> None:
    """What a half asks, made senseless, changes the ranks of the other half and not its own weights."""
    branch_NHD, text_TD, asked = task()
    half_N, half_T = branch_weights.halves(asked, seed=0)
    assert abs(int(half_N.sum()) - 60) <= 1
    assert (half_T == np.repeat(half_N, 2)).all()
    fitted = [branch_weights.fit(branch_NHD, text_TD, asked, half_N == h, half_T == h, 0) for h in (0, 1)]
    by_text, by_image = branch_weights.cross_fitted(branch_NHD, text_TD, asked, seed=0)
    for half in (0, 1):
        vector_NGD = branch_weights.weighted(branch_NHD, fitted[1 - half])[:, None]
        for found, expected, half_Q in zip(
            (by_text, by_image), both_ways(vector_NGD, text_TD, asked), (half_T, half_N), strict=True
        ):
            own_P = half_Q[found.query_P] == half
            assert (found.above_P[own_P] == expected.above_P[own_P]).all()


def test_too_few_images_leave_the_mean() -> None:
    branch_NHD, text_TD, asked = task(images=2, captions=1)
    served_NGD = F.normalize(branch_NHD.mean(dim=1, keepdim=True), dim=-1)
    found = branch_weights.cross_fitted(branch_NHD, text_TD, asked, seed=0)
    for learnt, served in zip(found, both_ways(served_NGD, text_TD, asked), strict=True):
        assert (learnt.above_P == served.above_P).all()
