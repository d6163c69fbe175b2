"""What is missing is found exactly, whatever is committed: no pair of row and cell is left out or done twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from captioning import cells as planning
from captioning import prompts, store
from captioning.cells import Cell
from captioning.models import Model
from captioning.store import Shard, WorkItem
from pipeline.commits import Part
from tests.captioning import world

ROWS = 40
SHARD = Shard("s", "images.parquet", "0123456789", "s.tar", ROWS, 0)


def plan(**settings: Any) -> list[Cell]:
    configuration = world.config(**settings)
    return planning.plan(configuration, prompts.load(configuration.prompts.set), [Model("m", "1", "m", False)])


CELLS = plan()


def commit(item: WorkItem) -> Part:
    detail = {"shard": "s", "start": item.start, "stop": item.stop, "figures": {}, "first_error": None}
    return Part(item.part, item.stop - item.start, 0, 1, "d", item.cells, detail=detail)


@given(
    runs=st.lists(
        st.tuples(
            st.integers(1, ROWS + 5),  # chunk size of the run
            st.sets(st.sampled_from(range(len(CELLS))), min_size=1),  # cells it asks for
            st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),  # which of its items get committed
        ),
        max_size=5,
    )
)
def test_any_history_of_runs_ends_with_every_pair_exactly_once(runs: list[tuple[int, set[int], list[bool]]]) -> None:
    committed: dict[str, Part] = {}
    for chunk, wanted, survives in [*runs, (7, set(range(len(CELLS))), [True] * ROWS)]:
        cells = [CELLS[index] for index in sorted(wanted)]
        items = store.missing(SHARD, store.parts_of(SHARD, committed), cells, chunk)
        for item, published in zip(items, survives, strict=False):
            if published:
                part = commit(item)
                assert part.name not in committed
                committed[part.name] = part
    pairs = [
        (row, cell)
        for part in committed.values()
        for row in range(part.detail["start"], part.detail["stop"])
        for cell in part.cells
    ]
    assert sorted(pairs) == sorted((row, cell.id) for row in range(ROWS) for cell in CELLS)


def test_an_untouched_shard_is_cut_into_chunks() -> None:
    items = store.missing(SHARD, [], CELLS, 16)
    assert [(item.start, item.stop) for item in items] == [(0, 16), (16, 32), (32, 40)]
    assert all(set(item.cells) == {cell.id for cell in CELLS} for item in items)


def test_a_chain_names_the_parts_that_hold_its_parents_answers() -> None:
    both = {"set": "holism", "only": ["main_object", "attributes"]}
    parent, child = plan(prompts=both)
    assert (child.parent, child.depth) == (parent.id, 1)
    committed = [commit(item) for item in store.missing(SHARD, [], [parent], 16)]
    items = store.missing(SHARD, committed, [parent, child], 64)
    assert [(item.start, item.stop, item.cells) for item in items] == [(0, ROWS, (child.id,))]
    assert set(items[0].sources) == {part.name for part in committed}


def test_cells_differ_in_whatever_decides_an_answer_and_in_nothing_else() -> None:
    def ids(**settings: Any) -> set[str]:
        return {cell.id for cell in plan(**settings)}

    same = ids()
    assert ids(chunk_images=9, ray={"enabled": True}) == same
    assert ids(sampling={"top_p": 0.5, "seed": 3}) == same  # greedy: neither matters
    assert not ids(sampling={"temperature": 0.7}) & same
    assert not ids(sampling={"max_tokens": 9}) & same
    assert not ids(paraphrases="rotate") & same
    assert not ids(max_pixels=4096) & same
    once = ids(sampling={"temperature": 0.7})
    assert once < ids(sampling={"temperature": 0.7}, samples_per_prompt=2)  # one more sample only adds


def test_rotated_paraphrases_use_all_wordings_and_depend_on_the_image_alone() -> None:
    cell = plan(paraphrases="rotate")[0]
    used = [cell.paraphrase(f"image {number}") for number in range(300)]
    assert set(used) == set(range(len(cell.prompt.paraphrases)))
    assert used == [plan(paraphrases="rotate")[0].paraphrase(f"image {number}") for number in range(300)]
