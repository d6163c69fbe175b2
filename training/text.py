"""Captions to tokens, and tokens to few, tight tensors.

Most captions are far shorter than the context length, and a text tower's cost is linear in what it is given. So the
texts of a batch are sorted by length and cut into at most three groups, each as wide as its longest member; the cuts
are the cheapest there are.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
import open_clip
import torch
from torch import Tensor

MAX_GROUPS = 3


@cache
def _tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


@lru_cache(maxsize=1 << 18)
def tokenize(text: str, context_length: int) -> tuple[int, ...]:
    """CLIP's tokens of a text between its start and end token; what is too long is cut, the end token stays.

    Cached: byte-pair encoding costs about 0.1 ms a text, and training sees each text once an epoch.
    """
    tokenizer = _tokenizer()
    tokens = [tokenizer.sot_token_id, *tokenizer.encode(text)[: context_length - 2], tokenizer.eot_token_id]
    return tuple(tokens)


def length_groups(lengths: Sequence[int], most: int = MAX_GROUPS) -> list[np.ndarray]:
    """Positions of the texts of each group: at most `most` groups, with the fewest padded tokens possible.

    Within a group texts keep their order. O(L²) in the number L of different lengths for the default of three.
    """
    if not len(lengths):
        return []
    order = np.argsort(lengths, kind="stable")
    values, counts = np.unique(lengths, return_counts=True)
    ends = _cheapest_cuts(values, np.cumsum(counts), most)
    return [np.sort(group) for group in np.split(order, ends[:-1])]


def _cheapest_cuts(values: np.ndarray, upto: np.ndarray, most: int) -> list[int]:
    """Ends (in texts) of the cheapest groups of texts sorted by length.

    values: the different lengths, ascending; upto[i]: how many texts are no longer than values[i].
    """
    cost = values * upto  # of everything up to i as one group
    choices: list[np.ndarray] = []
    for _ in range(min(most, len(values)) - 1):
        # The last group holds the lengths (j, i]; what is before it is already cut as well as it can be.
        last = values[None, :] * (upto[None, :] - upto[:, None])
        total = np.where(np.arange(len(values))[:, None] < np.arange(len(values))[None, :], cost[:, None] + last, cost)
        choices.append(total.argmin(axis=0))
        cost = np.minimum(total.min(axis=0), cost)
    ends = [int(upto[-1])]
    place = len(values) - 1
    for choice in reversed(choices):
        if choice[place] >= place:
            continue
        place = int(choice[place])
        ends.append(int(upto[place]))
    return ends[::-1]


def pad(tokens: Sequence[tuple[int, ...]]) -> Tensor:
    """Token ids (T, L), L being the longest text's length; zeros behind the shorter ones."""
    padded = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.long)
    for row, ids in zip(padded, tokens, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return padded
