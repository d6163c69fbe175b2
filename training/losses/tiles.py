"""Reductions over matrices of logits, made tile by tile.

Every contrast needs one thing of its matrix of logits: a number for each row, and perhaps one for each column. So each
tile of it is made, reduced and dropped, and made again in backward: what is kept for backward grows with B and N, not
with B · N. Small matrices are kept after all, as making them twice costs a product. Where both directions share a
matrix, as they do on a single rank, that is 3 products forward and backward, 4 in the large, and 6 the usual way.

Shapes: G matrices at once (one a slot), each of B rows and N columns, over embeddings of width E. A logit is
scale · <row, column>. Rows and columns that are not present must hold numbers, zeros at best; they take no part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits in hand at once, 16 MiB in float32. On two CPU cores 2^20 to 2^24 differ by about a tenth, and 2^16 takes half
# as long again; a GPU wants products large enough to fill it.
TILE_LOGITS = 1 << 22
# Logits of a call that are kept for backward, 128 MiB in float32; of more, none are.
KEPT_LOGITS = 1 << 25

Tile = tuple[slice, slice]


@dataclass(frozen=True)
class Matrix:
    """What a reduction is of: matrices of logits that are not there yet.

    rows_GBE, columns_GNE, scale: the factors. present_GB, present_GN: which rows and columns take part.
    own_B: the column that is each row's right answer, the same in all matrices.
    """

    rows_GBE: Tensor
    columns_GNE: Tensor
    scale: Tensor
    present_GB: Tensor
    present_GN: Tensor
    own_B: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        """The fields, as autograd wants them."""
        return self.rows_GBE, self.columns_GNE, self.scale, self.present_GB, self.present_GN, self.own_B


def log_sum_exp(matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Of each row the log-sum-exp over the present columns, and the logit of its own column: (G, B) each.

    Zero for a row that is not present, or that meets no present column; so is the logit of an own column that is not.
    """
    row_GB, _, own_GB = _LogSumExp.apply(False, *matrix.parts())
    return row_GB, own_GB


def log_sum_exp_both_ways(matrix: Matrix) -> tuple[Tensor, Tensor, Tensor]:
    """As log_sum_exp, with the log-sum-exp of each column over the present rows between the two: (G, N)."""
    return _LogSumExp.apply(True, *matrix.parts())


def softplus_sum(matrix: Matrix, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row the sum over the present columns of softplus(logit + bias), and the logit of its own column: (G, B).

    Zero for a row that is not present. `bias` is one number; no gradient goes to it.
    """
    return _SoftplusSum.apply(bias, *matrix.parts())


def relative_entropy(matrix: Matrix, target: Matrix) -> Tensor:
    """How far the softmax p of each row is from the target's q: the sum of q · log(q / p) over its columns, (G, B).

    Both have the same present rows and columns. Zero for a row that is not present, or that meets no present column;
    no gradient goes to the target.
    """
    return _RelativeEntropy.apply(target.rows_GBE, target.columns_GNE, target.scale, *matrix.parts())


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both_ways: bool, *parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = _Logits(Matrix(*parts))
        row_GB, own_GB = logits.per_row(), logits.per_row()
        column_GN = torch.full_like(logits.absent_GN, -torch.inf)
        for (g, b), tile in logits.tiles():
            row_GB[g, b] = tile.logsumexp(dim=2)
            own_GB[g, b] = logits.own(tile, b)
            if both_ways:
                column_GN[g] = torch.logaddexp(column_GN[g], tile.logsumexp(dim=1))
        for sums in (row_GB, column_GN, own_GB):  # a sum of nothing: as zero it makes no NaN where it is masked
            sums.masked_fill_(sums.isneginf(), 0.0)
        ctx.save_for_backward(*parts, row_GB, column_GN, *logits.kept)
        ctx.both_ways = both_ways
        return row_GB, column_GN, own_GB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *parts, row_GB, column_GN = ctx.saved_tensors[:8]
        grad_row_GB, grad_column_GN, grad_own_GB = grads

        def grad_of(tile: Tensor, g: slice, b: slice) -> Tensor:
            grad = (tile - row_GB[g, b, None]).exp_().mul_(grad_row_GB[g, b, None])
            if ctx.both_ways:
                grad += (tile - column_GN[g, None]).exp_().mul_(grad_column_GN[g, None])
            return grad

        return None, *_Logits(Matrix(*parts), ctx.saved_tensors[8:]).backward(grad_of, grad_own_GB), None, None, None


class _SoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        logits = _Logits(Matrix(*parts))
        sum_GB, own_GB = logits.per_row(), logits.per_row()
        for (g, b), tile in logits.tiles():
            sum_GB[g, b] = F.softplus(tile + bias).sum(dim=2)
            own_GB[g, b] = logits.own(tile, b)
        own_GB.masked_fill_(own_GB.isneginf(), 0.0)
        ctx.save_for_backward(*parts, bias, *logits.kept)
        return sum_GB, own_GB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *parts, bias = ctx.saved_tensors[:7]
        grad_sum_GB, grad_own_GB = grads

        def grad_of(tile: Tensor, g: slice, b: slice) -> Tensor:
            return (tile + bias).sigmoid_().mul_(grad_sum_GB[g, b, None])

        return None, *_Logits(Matrix(*parts), ctx.saved_tensors[7:]).backward(grad_of, grad_own_GB), None, None, None


class _RelativeEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        logits, target = _Logits(Matrix(*parts[3:])), _Logits(Matrix(*parts[:3], *parts[6:]))
        sum_GB = logits.per_row()
        for (g, b), tile in logits.tiles():
            p, q = tile.log_softmax(dim=2), target.at(g, b).log_softmax(dim=2)
            sum_GB[g, b] = (q.exp() * (q - p)).masked_fill_(tile.isneginf(), 0.0).sum(dim=2)
        ctx.save_for_backward(*parts, *logits.kept)
        return sum_GB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sum_GB: Tensor) -> tuple[Tensor | None, ...]:
        parts, kept = ctx.saved_tensors[:9], ctx.saved_tensors[9:]
        target = _Logits(Matrix(*parts[:3], *parts[6:]))

        def grad_of(tile: Tensor, g: slice, b: slice) -> Tensor:
            grad = tile.softmax(dim=2).sub_(target.at(g, b).softmax(dim=2))
            return grad.masked_fill_(tile.isneginf(), 0.0).mul_(grad_sum_GB[g, b, None])

        grads = _Logits(Matrix(*parts[3:]), kept).backward(grad_of, torch.zeros_like(grad_sum_GB))
        return None, None, None, *grads, None, None, None


class _Logits:
    """The logits of a matrix by tiles, `kept` ones or made on the way; -inf where row or column is not present."""

    def __init__(self, matrix: Matrix, kept: tuple[Tensor, ...] = ()) -> None:
        self._matrix, self.kept = matrix, list(kept)
        self._scaled_GBE = matrix.rows_GBE * matrix.scale
        self._absent_GB = self._minus_infinity_unless(matrix.present_GB)
        self.absent_GN = self._minus_infinity_unless(matrix.present_GN)

    def per_row(self) -> Tensor:
        """An empty (G, B)."""
        return torch.empty_like(self._absent_GB)

    def tiles(self) -> Iterator[tuple[Tile, Tensor]]:
        """Each tile's place and logits (G', B', N), which are not to be written to."""
        (G, B), N = self._absent_GB.shape, self.absent_GN.shape[1]
        have, keep = bool(self.kept), G * B * N <= KEPT_LOGITS
        for place, (g, b) in enumerate(_places(G, B, N)):
            if have:
                yield (g, b), self.kept[place]
                continue
            tile = self.at(g, b)
            if keep:
                self.kept.append(tile)
            yield (g, b), tile

    def at(self, g: slice, b: slice) -> Tensor:
        """The logits of one tile (G', B', N)."""
        tile = torch.bmm(self._scaled_GBE[g, b], self._matrix.columns_GNE[g].transpose(1, 2))
        return tile.add_(self.absent_GN[g, None]).add_(self._absent_GB[g, b, None])

    def own(self, tile: Tensor, b: slice) -> Tensor:
        """The logits of the rows' own columns, (G', B')."""
        return tile.gather(2, self._own(tile, b)).squeeze(2)

    def backward(
        self, grad_of: Callable[[Tensor, slice, slice], Tensor], grad_own_GB: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of rows, columns and scale.

        grad_of gives the gradient of a tile's logits, but for what comes through the rows' own logits, grad_own_GB.
        """
        matrix = self._matrix
        has_own_GB = matrix.present_GB & matrix.present_GN[:, matrix.own_B]
        grad_own_GB = grad_own_GB.masked_fill(~has_own_GB, 0.0)
        per_scale_GBE, grad_columns_GNE = torch.empty_like(self._scaled_GBE), torch.zeros_like(matrix.columns_GNE)
        for (g, b), tile in self.tiles():
            grad = grad_of(tile, g, b)
            grad.scatter_add_(2, self._own(tile, b), grad_own_GB[g, b, None])
            torch.bmm(grad, matrix.columns_GNE[g], out=per_scale_GBE[g, b])
            grad_columns_GNE[g].baddbmm_(grad.transpose(1, 2), self._scaled_GBE[g, b])
        return per_scale_GBE * matrix.scale, grad_columns_GNE, (per_scale_GBE * matrix.rows_GBE).sum()

    def _own(self, tile: Tensor, b: slice) -> Tensor:
        return self._matrix.own_B[None, b, None].expand(len(tile), -1, -1)

    def _minus_infinity_unless(self, present: Tensor) -> Tensor:
        return torch.zeros_like(present, dtype=self._scaled_GBE.dtype).masked_fill_(~present, -torch.inf)


def _places(G: int, B: int, N: int) -> Iterator[Tile]:
    """Slices of matrices and of rows: several whole matrices where they fit a tile, else some rows of one."""
    if B * N <= TILE_LOGITS:
        matrices = TILE_LOGITS // max(B * N, 1)
        yield from ((slice(g, g + matrices), slice(None)) for g in range(0, G, matrices))
    else:
        rows = max(1, TILE_LOGITS // N)
        yield from ((slice(g, g + 1), slice(b, b + rows)) for g in range(G) for b in range(0, B, rows))
