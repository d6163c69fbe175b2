"""Figures on the same features are CLIP_benchmark's own, where it is installed (benchmarks/evaluation.md says how)."""

from __future__ import annotations

import pytest

from benchmarks import evaluation as beside

pytest.importorskip("clip_benchmark")


def test_recalls_are_those_of_clip_benchmark() -> None:
    vectors = beside.generated(images=150, captions=5, width=32, noise=3.0)
    ours, theirs = beside.ours_retrieval(*vectors), beside.their_retrieval(*vectors)
    assert len(theirs) == 2 * len(beside.KS)
    assert min(theirs.values()) < 0.9, "a task that is not solved"
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)


def test_accuracies_are_those_of_clip_benchmark() -> None:
    pytest.importorskip("sklearn")
    vectors = beside.generated(images=2000, captions=2, width=32, noise=2.0)
    ours, theirs = beside.ours_classification(*vectors), beside.their_classification(*vectors)
    assert 0 < theirs["acc1"] < 0.9
    assert ours == pytest.approx(theirs, abs=1e-6)
