"""The demo world's benchmark folder: relevance is the truth's, and what is written can be read back."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo_world import holds, sample, truth
from pipeline.demo_world.alt_text import alt_text, true_alt_texts
from pipeline.demo_world.benchmark import PERSPECTIVES, query_rows
from pipeline.demo_world.language import answers
from pipeline.demo_world.write import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    write_world(out, train=2, heldout=40, seed=5)
    return out


@given(first=st.integers(0, 2**20))
@settings(max_examples=10, deadline=None)
def test_relevance_of_every_query_is_what_the_truth_says(first: int) -> None:
    truths = [truth(sample(seed)) for seed in range(first, first + 12)]
    files = [f"{i}.jpg" for i in range(12)]
    for row in query_rows(files, truths):
        if row["perspective"] == "alt_text":
            continue
        writers = [t for t in truths if row["text"] in answers(t, row["perspective"])]
        assert writers
        for writer in writers:
            expected = [file for file, t in zip(files, truths, strict=True) if holds(writer, row["perspective"], t)]
            assert row["relevant"] == expected


@given(seed=st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_alt_text_queries_are_true_of_their_own_scene_only_when_they_say_so(seed: int) -> None:
    truths = [truth(sample(s)) for s in range(seed, seed + 8)]
    rows = query_rows([str(i) for i in range(8)], truths)
    for row in rows:
        if row["perspective"] == "alt_text":
            for index in map(int, row["relevant"]):
                assert truths[index]["main"]["shape"] in row["text"]
                assert row["text"] in true_alt_texts(truths[index]).values()


def test_useless_and_wrong_alt_texts_are_no_queries() -> None:
    t = truth(sample(3))
    queries = {row["text"] for row in query_rows(["a.jpg"], [t]) if row["perspective"] == "alt_text"}
    said = {alt_text(t, np.random.default_rng(seed)) for seed in range(200)}
    assert queries == set(true_alt_texts(t).values())
    assert any(text.startswith(("IMG_", "DSC")) for text in said)
    assert not any(text.startswith(("IMG_", "DSC", "free", "stock")) for text in queries)


def test_folder_holds_every_part(world: Path) -> None:
    folder = world / "heldout"
    labels = pq.read_table(folder / "labels.parquet").to_pylist()
    queries = pq.read_table(folder / "queries.parquet").to_pylist()
    assert sorted(row["file"] for row in labels) == sorted(path.name for path in (folder / "images").iterdir())
    assert {row["perspective"] for row in queries} == {*PERSPECTIVES, "alt_text"}
    texts = [(row["perspective"], row["text"]) for row in queries]
    assert len(set(texts)) == len(texts)
    assert len({row["query_id"] for row in queries}) == len(queries)


def test_colours_that_a_style_hides_have_no_label(world: Path) -> None:
    labels = pq.read_table(world / "heldout" / "labels.parquet").to_pylist()
    truths = [json.loads(t) for t in pq.read_table(world / "heldout" / "truth.parquet")["truth"].to_pylist()]
    hidden = [row["color"] is None for row in labels]
    assert hidden == [t["main"]["color"] is None for t in truths]
    assert any(hidden)
