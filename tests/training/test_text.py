"""Length groups are the cheapest there are, and tokens are CLIP's."""

from itertools import combinations, pairwise

import numpy as np
import open_clip
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.text import length_groups, pad, tokenize


def cheapest(lengths: list[int], most: int) -> int:
    """By trying all cuts of the sorted lengths."""
    ordered = sorted(lengths)
    best = len(ordered) * ordered[-1]
    for cuts in range(1, most):
        for places in combinations(range(1, len(ordered)), cuts):
            ends = [0, *places, len(ordered)]
            best = min(best, sum((b - a) * ordered[b - 1] for a, b in pairwise(ends)))
    return best


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=12), st.integers(1, 3))
def test_groups_pad_as_little_as_possible(lengths: list[int], most: int) -> None:
    groups = length_groups(lengths, most)
    assert len(groups) <= most
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert sum(len(group) * max(lengths[i] for i in group) for group in groups) == cheapest(lengths, most)


def test_nothing_makes_no_group() -> None:
    assert length_groups([]) == []


def test_tokens_are_open_clips_cut_at_the_context_with_the_end_kept() -> None:
    texts = ["A Red Star!", "one two three four five six seven eight nine ten eleven"]
    expected = open_clip.SimpleTokenizer(context_length=10)(texts)
    found = pad([np.array(tokenize(text, 10)[1:-1], dtype=np.uint16).tobytes() for text in texts])
    assert torch.equal(found, expected)
