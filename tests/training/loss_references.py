"""Loss terms as plain loops over samples, written from their formulas; and batches to compare them on."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from training.losses import TERMS, Features

Weights = Callable[[int, int], Tensor]  # (sample, slot) to the weights of its branches


def embeddings(
    seed: int, samples: int, branches: int, slots: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Leaf tensors v (N, H, D), t (N, M, D), unit norm, and a scale."""
    generator = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        x = torch.randn(samples, count, 12, generator=generator, dtype=torch.float64)
        return F.normalize(x, dim=-1).to(dtype).requires_grad_()

    return unit(branches), unit(slots), torch.tensor(7.5, dtype=dtype, requires_grad=True)


def everything(slots: int, samples: int) -> Tensor:
    return torch.ones(samples, slots, dtype=torch.bool)


@st.composite
def masked_batches(draw: st.DrawFn) -> tuple[int, int, int, int, Tensor]:
    """Seed, samples, branches, slots and a mask."""
    seed, samples = draw(st.integers(0, 1000)), draw(st.integers(1, 5))
    branches, slots = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    bits = draw(st.lists(st.booleans(), min_size=samples * slots, max_size=samples * slots))
    return seed, samples, branches, slots, torch.tensor(bits).view(samples, slots)


def value(term: str, features: Features) -> Tensor:
    return TERMS[term](features).mean


def assert_same(loss: Tensor, expected: Tensor, leaves: tuple[Tensor, ...], rtol: float) -> None:
    """Equal values and equal gradients of the leaves."""
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=rtol)
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad(expected, leaves, allow_unused=True, materialize_grads=True)
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=rtol, atol=rtol)


def contrast(v: Tensor, t: Tensor, mask: Tensor, s: Tensor, weights: Weights) -> Tensor:
    """PAPER 1.3 as a loop over slots and rows; a slot's batch is the samples that have it."""
    losses = []
    for m in range(t.shape[1]):
        have = [n for n in range(len(v)) if mask[n, m]]
        for n in have:
            w = weights(n, m)
            row = torch.stack([s * (w @ (v[n] @ t[k, m])) for k in have])
            column = torch.stack([s * (w @ (v[k] @ t[n, m])) for k in have])
            own = have.index(n)
            losses.append((torch.logsumexp(row, 0) - row[own] + torch.logsumexp(column, 0) - column[own]) / 2)
    return torch.stack(losses).mean() if losses else 0.0 * v.sum()


def best_branch(v: Tensor, t: Tensor, mask: Tensor, s: Tensor) -> Tensor:
    """As `contrast`, the logit of an image and a caption being the soft maximum over the image's branches."""
    losses = []
    for m in range(t.shape[1]):
        have = [n for n in range(len(v)) if mask[n, m]]
        for n in have:
            row = torch.stack([torch.logsumexp(s * (v[n] @ t[k, m]), 0) for k in have])
            column = torch.stack([torch.logsumexp(s * (v[k] @ t[n, m]), 0) for k in have])
            own = have.index(n)
            losses.append((torch.logsumexp(row, 0) - row[own] + torch.logsumexp(column, 0) - column[own]) / 2)
    return torch.stack(losses).mean() if losses else 0.0 * v.sum()


def one_hot(branch: int, branches: int) -> Tensor:
    return F.one_hot(torch.tensor(branch), branches).double()


def chosen(v: Tensor, t: Tensor, s: Tensor, soft: bool = False) -> Weights:
    """Weights of free matching: a slot below H keeps its branch where there are at least H slots."""
    H, M = v.shape[1], t.shape[1]

    def weights(n: int, m: int) -> Tensor:
        logits = (s * (v[n] @ t[n, m])).detach()
        if m < H <= M:
            return one_hot(m, H).to(v.dtype)
        return logits.softmax(0) if soft else one_hot(int(logits.argmax()), H).to(v.dtype)

    return weights


def served_vectors(v: Tensor) -> Tensor:
    return F.normalize(v.mean(dim=1), dim=-1)


def multi_positive(v: Tensor, t: Tensor, mask: Tensor, s: Tensor) -> Tensor:
    """Every true caption's cross entropy among all captions, and among all images that have one."""
    image = served_vectors(v)
    captions = [(n, m) for n in range(len(t)) for m in range(t.shape[1]) if mask[n, m]]
    images = sorted({n for n, _ in captions})
    losses = []
    for n, m in captions:
        own = s * (image[n] @ t[n, m])
        among_captions = torch.stack([s * (image[n] @ t[k, j]) for k, j in captions]).logsumexp(0)
        among_images = torch.stack([s * (image[k] @ t[n, m]) for k in images]).logsumexp(0)
        losses.append((among_captions + among_images) / 2 - own)
    return torch.stack(losses).mean() if losses else 0.0 * v.sum()


def sigmoid(v: Tensor, t: Tensor, mask: Tensor, s: Tensor) -> Tensor:
    """Each pair by itself, with the log odds of a true pair as bias."""
    image = served_vectors(v)
    images = [n for n in range(len(t)) if mask[n].any()]
    bias = -torch.tensor(float(max(len(images) - 1, 1))).double().log()
    losses = []
    for n in images:
        for m in range(t.shape[1]):
            if mask[n, m]:
                signs = [(1.0 if k == n else -1.0) * (s * (image[k] @ t[n, m]) + bias) for k in images]
                losses.append(-F.logsigmoid(torch.stack(signs)).sum())
    return torch.stack(losses).mean() if losses else 0.0 * v.sum()


def diversity(v: Tensor, mask: Tensor) -> Tensor:
    """PAPER 1.3 d over the images that have a caption."""
    have = [n for n in range(len(v)) if mask[n].any()]
    H = v.shape[1]
    pairs = [v[n, h] @ v[n, k] for n in have for h in range(H) for k in range(H) if h != k]
    return (torch.stack(pairs).mean() - 0.7).clamp(min=0) if pairs else 0.0 * v.sum()
