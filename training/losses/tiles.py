"""Reductions over matrices of logits that are never held whole.

Every contrast needs one thing of its matrix of logits: a number for each row, and perhaps one for each column. So the
matrix is made tile by tile, reduced, dropped, and made again in backward: what is kept for backward grows with B and
N, not with B · N. Making it twice costs a product; where both directions share a matrix, as they do on a single rank,
that is still fewer products than keeping a matrix for each (4 against 6, forward and backward).

Shapes: G matrices at once (one a slot), each of B rows and N columns, over embeddings of width E. A logit is
scale · <row, column>. Rows and columns that are not present must hold numbers, zeros at best; they take no part.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits in hand at once. Smaller tiles leave a GPU idle, larger ones fall out of a CPU's caches.
TILE_LOGITS = 1 << 20


def log_sum_exp(
    rows_GBE: Tensor, columns_GNE: Tensor, scale: Tensor, present_GB: Tensor, present_GN: Tensor
) -> Tensor:
    """Log-sum-exp of each row's logits over the present columns: (G, B).

    Zero for a row that is not present or that meets no present column.
    """
    return _LogSumExp.apply(rows_GBE, columns_GNE, scale, present_GB, present_GN, False)[0]


def log_sum_exp_both_ways(
    rows_GBE: Tensor, columns_GNE: Tensor, scale: Tensor, present_GB: Tensor, present_GN: Tensor
) -> tuple[Tensor, Tensor]:
    """Of one matrix, log-sum-exp of the rows over the columns (G, B), and of the columns over the rows (G, N)."""
    return _LogSumExp.apply(rows_GBE, columns_GNE, scale, present_GB, present_GN, True)


def softplus_sum(
    rows_GBE: Tensor, columns_GNE: Tensor, scale: Tensor, bias: Tensor, present_GB: Tensor, present_GN: Tensor
) -> Tensor:
    """Sum over the present columns of softplus(logit + bias): (G, B), zero for a row that is not present.

    `bias` is one number; no gradient goes to it.
    """
    return _SoftplusSum.apply(rows_GBE, columns_GNE, scale, bias, present_GB, present_GN)


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, present_GB: Tensor, present_GN: Tensor, both_ways: bool
    ) -> tuple[Tensor, Tensor]:
        row_GB = rows.new_empty(present_GB.shape)
        column_GN = columns.new_full(present_GN.shape, float("-inf"))
        for g, b in _tiles(present_GB.shape, present_GN.shape):
            logits = _logits(rows[g, b], columns[g], scale, present_GB[g, b], present_GN[g])
            row_GB[g, b] = logits.logsumexp(dim=2)
            if both_ways:
                column_GN[g] = torch.logaddexp(column_GN[g], logits.logsumexp(dim=1))
        # The logarithm of an empty sum is -inf. As zero it makes no NaN downstream, where it is masked.
        row_GB.masked_fill_(row_GB.isneginf(), 0.0)
        column_GN.masked_fill_(column_GN.isneginf(), 0.0)
        ctx.save_for_backward(rows, columns, scale, present_GB, present_GN, row_GB, column_GN)
        ctx.both_ways = both_ways
        return row_GB, column_GN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_row_GB: Tensor, grad_column_GN: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, present_GB, present_GN, row_GB, column_GN = ctx.saved_tensors

        def grad_logits(logits: Tensor, g: slice, b: slice) -> Tensor:
            of_rows = (logits - row_GB[g, b, None]).exp_().mul_(grad_row_GB[g, b, None])
            if not ctx.both_ways:
                return of_rows
            return of_rows.add_(logits.sub_(column_GN[g, None]).exp_().mul_(grad_column_GN[g, None]))

        return *_backward(rows, columns, scale, present_GB, present_GN, grad_logits), None, None, None


class _SoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, present_GB: Tensor, present_GN: Tensor
    ) -> Tensor:
        sum_GB = rows.new_empty(present_GB.shape)
        for g, b in _tiles(present_GB.shape, present_GN.shape):
            logits = _logits(rows[g, b], columns[g], scale, present_GB[g, b], present_GN[g])
            sum_GB[g, b] = F.softplus(logits.add_(bias)).sum(dim=2)
        ctx.save_for_backward(rows, columns, scale, bias, present_GB, present_GN)
        return sum_GB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_GB: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, bias, present_GB, present_GN = ctx.saved_tensors

        def grad_logits(logits: Tensor, g: slice, b: slice) -> Tensor:
            return logits.add_(bias).sigmoid_().mul_(grad_GB[g, b, None])

        return *_backward(rows, columns, scale, present_GB, present_GN, grad_logits), None, None, None


def _backward(
    rows: Tensor, columns: Tensor, scale: Tensor, present_GB: Tensor, present_GN: Tensor, grad_logits: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of rows, columns and scale, where grad_logits(logits, g, b) gives a tile's; it may overwrite them."""
    grad_rows, grad_columns = torch.empty_like(rows), torch.zeros_like(columns)
    for g, b in _tiles(present_GB.shape, present_GN.shape):
        logits = _logits(rows[g, b], columns[g], scale, present_GB[g, b], present_GN[g])
        grad = grad_logits(logits, g, b)
        grad_rows[g, b] = grad @ columns[g]
        grad_columns[g].baddbmm_(grad.transpose(1, 2), rows[g, b] * scale)
    return grad_rows * scale, grad_columns, (grad_rows * rows).sum()


def _tiles(rows_GB: tuple[int, int], columns_GN: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Slices of matrices and of rows: several whole matrices where they fit a tile, else some rows of one."""
    (G, B), N = rows_GB, columns_GN[1]
    if B * N <= TILE_LOGITS:
        matrices = TILE_LOGITS // max(B * N, 1)
        yield from ((slice(g, g + matrices), slice(None)) for g in range(0, G, matrices))
    else:
        rows = max(1, TILE_LOGITS // N)
        yield from ((slice(g, g + 1), slice(b, b + rows)) for g in range(G) for b in range(0, B, rows))


def _logits(rows: Tensor, columns: Tensor, scale: Tensor, present_GB: Tensor, present_GN: Tensor) -> Tensor:
    """A tile's logits, -inf where the row or the column is not present."""
    logits = torch.bmm(rows * scale, columns.transpose(1, 2))
    return logits.masked_fill_(~(present_GB[:, :, None] & present_GN[:, None, :]), float("-inf"))
