"""Captions to tokens, and tokens to few, tight tensors.

Most captions are far shorter than the context length, and a text tower's cost is linear in what it is given. So the
texts of a batch are sorted by length and cut into at most three groups, each as wide as its longest member; the cuts
are the cheapest there are.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.clip_tokens import END, START, clip_encoder

MAX_GROUPS = 3
TOKEN_BYTES = 2


def tokenize(text: str, context_length: int) -> tuple[int, ...]:
    """CLIP's tokens of a text between its start and end token; what is too long is cut, the end token stays."""
    return tuple(within(clip_encoder()(text), context_length).tolist())


def within(tokens: Sequence[int] | np.ndarray, context_length: int) -> np.ndarray:
    """Tokens of a text as a tower takes them: cut to the context length, with a start and an end."""
    return np.concatenate([[START], tokens[: context_length - 2], [END]]).astype(np.int64)


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


def pad(texts: Sequence[bytes]) -> Tensor:
    """Token ids (T, L), each text between its start and its end; zeros behind those shorter than the longest.

    A text is its tokens as bytes, as the index holds them (uint16).
    """
    lengths = np.array([len(text) // TOKEN_BYTES for text in texts])
    padded = np.zeros((len(texts), int(lengths.max()) + 2), dtype=np.int64)
    padded[:, 0] = START
    padded[:, 1:][np.arange(padded.shape[1] - 1) < lengths[:, None]] = np.frombuffer(b"".join(texts), dtype=np.uint16)
    padded[np.arange(len(texts)), lengths + 1] = END
    return torch.from_numpy(padded)
