"""Tiled reductions equal those of the whole matrix, values and gradients, whatever the tiles, whatever is missing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from training.losses import tiles
from training.losses.tiles import Matrix, log_sum_exp, log_sum_exp_both_ways, softplus_sum

BIAS = torch.tensor(-1.5, dtype=torch.float64)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Matrix, int, int]:
    """A matrix with absent rows and columns, and sizes of tiles and of what is kept."""
    G, B, N = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    rows, columns = (torch.randn(G, n, 4, generator=generator, dtype=torch.float64) for n in (B, N))
    present_GB, present_GN = (
        torch.rand(G, n, generator=generator) < draw(st.sampled_from([0.5, 1.0])) for n in (B, N)
    )
    scale = torch.tensor(3.0, dtype=torch.float64)
    own_B = torch.randint(N, (B,), generator=generator)
    for leaf in (rows, columns, scale):
        leaf.requires_grad_()
    matrix = Matrix(rows, columns, scale, present_GB, present_GN, own_B)
    return matrix, draw(st.integers(1, 40)), draw(st.sampled_from([0, 1 << 20]))


def whole(matrix: Matrix) -> dict[str, Tensor]:
    """Both reductions over the whole matrix, by plain autograd; zero where there is nothing."""
    logits = matrix.scale * matrix.rows_GBE @ matrix.columns_GNE.transpose(1, 2)
    both = matrix.present_GB[:, :, None] & matrix.present_GN[:, None]
    own = torch.eye(logits.shape[2], dtype=torch.bool)[matrix.own_B] & both
    row = torch.where(both, logits, -1e30).logsumexp(2)
    column = torch.where(both, logits, -1e30).logsumexp(1)
    return {
        "row": row.where(both.any(2), torch.zeros_like(row)),
        "column": column.where(both.any(1), torch.zeros_like(column)),
        "own": (logits * own).sum(2),
        "softplus": (F.softplus(logits + BIAS) * both).sum(2),
    }


def tiled(matrix: Matrix) -> dict[str, Tensor]:
    row, column, own = log_sum_exp_both_ways(matrix)
    total, _ = softplus_sum(matrix, BIAS)
    return {"row": row, "column": column, "own": own, "softplus": total}


@settings(max_examples=80, deadline=None)
@given(matrices())
def test_tiles_equal_the_whole(drawn: tuple[Matrix, int, int]) -> None:
    matrix, tile, kept = drawn
    leaves = [matrix.rows_GBE, matrix.columns_GNE, matrix.scale]
    generator = torch.Generator().manual_seed(0)
    wanted = whole(matrix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_LOGITS", tile)
        patch.setattr(tiles, "KEPT_LOGITS", kept)
        found = tiled(matrix)
        weights = {name: torch.randn(value.shape, generator=generator).double() for name, value in wanted.items()}
        sums = [sum((values[name] * weights[name]).sum() for name in weights) for values in (found, wanted)]
        grads = [torch.autograd.grad(total, leaves) for total in sums]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-8, atol=1e-8)


def square(B: int, width: int = 16, dtype: torch.dtype = torch.float32) -> Matrix:
    """Two matrices of B rows and columns, all present, the diagonal being right."""
    generator = torch.Generator().manual_seed(B)
    rows, columns = (F.normalize(torch.randn(2, B, width, generator=generator, dtype=dtype), dim=-1) for _ in range(2))
    everything = torch.ones(2, B, dtype=torch.bool)
    scale = torch.tensor(10.0, dtype=dtype)
    for leaf in (rows, columns, scale):
        leaf.requires_grad_()
    return Matrix(rows, columns, scale, everything, everything, torch.arange(B))


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("reduction", ["one way", "both ways", "softplus"])
def test_gradients_by_finite_differences(monkeypatch: pytest.MonkeyPatch, reduction: str, kept: int) -> None:
    monkeypatch.setattr(tiles, "TILE_LOGITS", 6)
    monkeypatch.setattr(tiles, "KEPT_LOGITS", kept)
    matrix = square(4, 3, torch.float64)
    present = torch.tensor([[True, True, False, True], [True, True, True, True]])

    def reduce(rows: Tensor, columns: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        partly = Matrix(rows, columns, scale, present, present, matrix.own_B)
        if reduction == "softplus":
            return softplus_sum(partly, BIAS)
        return log_sum_exp(partly) if reduction == "one way" else log_sum_exp_both_ways(partly)

    assert torch.autograd.gradcheck(reduce, (matrix.rows_GBE, matrix.columns_GNE, matrix.scale))


def test_backward_may_be_called_twice() -> None:
    """Kept logits are not written to."""
    matrix = square(8)
    total = sum(part.sum() for part in log_sum_exp_both_ways(matrix)) + softplus_sum(matrix, BIAS.float())[0].sum()
    first, second = (torch.autograd.grad(total, matrix.rows_GBE, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_extreme_logits_stay_finite() -> None:
    """Logits of ±100 neither overflow nor vanish: CLIP's scale goes up to 100."""
    vectors = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    everything = torch.ones(1, 3, dtype=torch.bool)
    columns = torch.tensor([[[-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]])
    matrix = Matrix(vectors, columns, torch.tensor(100.0), everything, everything, torch.arange(3))
    row, column, own = log_sum_exp_both_ways(matrix)
    torch.testing.assert_close(row[0], torch.tensor([-100.0, 100.0, 0.0]) + math.log(3))
    torch.testing.assert_close(own[0], torch.tensor([-100.0, 100.0, 0.0]))
    grad = torch.autograd.grad(row.sum() + column.sum(), vectors)[0]
    assert torch.isfinite(grad).all()


def kept_bytes(B: int) -> int:
    """Bytes that autograd keeps of both reductions of `square(B)`, beside the matrix's own tensors."""
    matrix = square(B)
    inputs = {part.untyped_storage().data_ptr() for part in matrix.parts()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in inputs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = [*log_sum_exp_both_ways(matrix), *softplus_sum(matrix, BIAS.float())]
    assert len(results) == 5
    return sum(kept.values())


def test_what_is_kept_grows_with_rows_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_bytes(64) > 2 * 2 * 64 * 64 * 4  # small: both reductions keep their logits
    monkeypatch.setattr(tiles, "KEPT_LOGITS", 0)
    assert kept_bytes(128) < 2.1 * kept_bytes(64) < 2.1 * 64 * 64
