"""The parts of an open_clip block, with its own weights and residuals, and without an (L, L) mask.

Attention has three forms: everything sees everything (`attend`); the first H rows under a mask of their own and the
rest under none, so that the many keep their fast kernel (`attend_split`); the first rows alone (`attend_rows`).

`attend_rows` is exact and needs neither keys nor values. With few queries, (q · W_k y) = (W_k' q · y) costs R · W per
token on the right and W² on the left, and the weighted mean of values is the value of the weighted mean. The key bias
adds the same to a row's every logit, so the softmax does not see it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def attend(block: nn.Module, x_BLW: Tensor) -> Tensor:
    """Every token attends to every token."""
    q, k, v = _qkv(block, x_BLW)
    return _residual(block, x_BLW, F.scaled_dot_product_attention(q, k, v))


def attend_split(block: nn.Module, x_BLW: Tensor, mask_HL: Tensor, *, rest_sees_all: bool) -> Tensor:
    """The first H rows attend under `mask_HL`, which is added to their logits; the rest to all or to the rest."""
    H = len(mask_HL)
    q, k, v = _qkv(block, x_BLW)
    first = F.scaled_dot_product_attention(q[:, :, :H], k, v, attn_mask=mask_HL.to(q.dtype))
    seen = slice(None) if rest_sees_all else slice(H, None)
    rest = F.scaled_dot_product_attention(q[:, :, H:], k[:, :, seen], v[:, :, seen])
    return _residual(block, x_BLW, torch.cat([first, rest], dim=2))


def attend_rows(block: nn.Module, x_BLW: Tensor, rows: int, mask_RL: Tensor | None = None) -> Tensor:
    """The first `rows` tokens after attending to all, (B, R, W); the other tokens are only looked at."""
    y_BLW = block.ln_1(x_BLW)
    heads = block.attn.num_heads
    query_BXW = _carried_queries(block, y_BLW, rows)
    mask_XL = None if mask_RL is None else mask_RL.to(query_BXW.dtype).repeat(heads, 1)
    scale = block.attn.head_dim**-0.5
    # One head as wide as the tokens: the tokens themselves are its keys and its values.
    y_B1LW = y_BLW[:, None]
    seen_BXW = F.scaled_dot_product_attention(query_BXW[:, None], y_B1LW, y_B1LW, attn_mask=mask_XL, scale=scale)[:, 0]
    value_XdW, bias = _in_projection(block, 2)
    out = torch.einsum("bxrw,xdw->brxd", seen_BXW.unflatten(1, (heads, rows)), value_XdW).flatten(2)
    if bias is not None:
        out = out + bias.to(out.dtype)
    return x_BLW[:, :rows] + block.ls_1(block.attn.out_proj(out))


def feed_forward(block: nn.Module, x: Tensor) -> Tensor:
    """The block's MLP, on tokens (…, W)."""
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def plain_block(block: nn.Module, x_BLW: Tensor) -> Tensor:
    """The block as open_clip has it."""
    return feed_forward(block, attend(block, x_BLW))


def row_sources(block: nn.Module, x_BLW: Tensor, rows: int, mask_RL: Tensor | None = None) -> Tensor:
    """What each of the first rows is given by each token: (B, R, L, W).

    Their sum over tokens, with the row itself and the output's bias, is what `attend_rows` gives.
    """
    y_BLW = block.ln_1(x_BLW)
    heads = block.attn.num_heads
    weight_BhRL = _head_weights(block, y_BLW, rows, mask_RL)
    value_XdW, bias = _in_projection(block, 2)
    value_BLX = F.linear(y_BLW, value_XdW.flatten(0, 1), bias)
    given_BRLX = torch.einsum("bhrl,blhd->brlhd", weight_BhRL, value_BLX.unflatten(-1, (heads, -1))).flatten(3)
    return block.ls_1(F.linear(given_BRLX, block.attn.out_proj.weight))


def _qkv(block: nn.Module, x_BLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (B, heads, L, W / heads), from the weights of the block's own attention."""
    attn = block.attn
    qkv = F.linear(block.ln_1(x_BLW), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _residual(block: nn.Module, x_BLW: Tensor, out_BhLd: Tensor) -> Tensor:
    return x_BLW + block.ls_1(block.attn.out_proj(out_BhLd.transpose(1, 2).flatten(2)))


def _head_weights(block: nn.Module, y_BLW: Tensor, rows: int, mask_RL: Tensor | None) -> Tensor:
    """How much each of the first rows looks at each normed token, (B, heads, R, L)."""
    logits_BXL = _carried_queries(block, y_BLW, rows) @ y_BLW.transpose(1, 2) * block.attn.head_dim**-0.5
    logits_BhRL = logits_BXL.unflatten(1, (block.attn.num_heads, rows))
    return (logits_BhRL if mask_RL is None else logits_BhRL + mask_RL).softmax(dim=-1)


def _carried_queries(block: nn.Module, y_BLW: Tensor, rows: int) -> Tensor:
    """Queries of the first rows, each head's carried back through its key matrix: (B, heads · R, W)."""
    weight_XdW, bias = _in_projection(block, 0)
    q_BRW = F.linear(y_BLW[:, :rows], weight_XdW.flatten(0, 1), bias)
    key_XdW, _ = _in_projection(block, 1)
    q_BRXd = q_BRW.unflatten(-1, (block.attn.num_heads, block.attn.head_dim))
    return torch.einsum("brxd,xdw->bxrw", q_BRXd, key_XdW).flatten(1, 2)


def _in_projection(block: nn.Module, which: int) -> tuple[Tensor, Tensor | None]:
    """Weight (heads, head width, W) and bias (W,) of the queries (0), keys (1) or values (2)."""
    attn = block.attn
    weight = attn.in_proj_weight.chunk(3)[which].unflatten(0, (attn.num_heads, attn.head_dim))
    return weight, None if attn.in_proj_bias is None else attn.in_proj_bias.chunk(3)[which]
