"""What is missing is found exactly, whatever is committed: no pair of image and cell is left out or done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import index, prompts
from captioning.asking import cells as planning
from captioning.asking.cells import Cell
from captioning.asking.missing import Demand
from captioning.asking.shares import Shares
from captioning.config import CaptionConfig
from captioning.index import AnswerIndex
from captioning.models import Model
from captioning.store import Shard, WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.identity import digest
from pipeline.storage import Location
from tests.captioning import world

MODEL = Model("m", "1", "m", False)
PICTURES = 30
NAMES = [digest(f"picture {number}") for number in range(PICTURES)]


def plan(**settings: Any) -> list[Cell]:
    configuration = world.config(**settings)
    return planning.plan(configuration, prompts.load(configuration.prompts.set), [MODEL])


CELLS = plan()


def demand(
    layout: list[list[int]], held: dict[tuple[str, str], str], cells: list[Cell], config: CaptionConfig | None = None
) -> Demand:
    """What `cells` lack for shards that hold these pictures (-1: one that cannot be read), where the store has `held`:
    a status for each (image id, cell)."""
    config = config or world.config()
    shards = tuple(Shard(str(n), "", f"{n:032d}", "", len(rows), rows.count(-1)) for n, rows in enumerate(layout))
    ids = tuple(index.ids(_array([None if row < 0 else NAMES[row] for row in rows])) for rows in layout)
    part = Part("captions/0/a.parquet", 1, 0, 1, "d" * 32, tuple({cell for _, cell in held}), detail={"figures": {}})
    return Demand((MODEL,), Shares.of(config, cells, [MODEL]), shards, ids, Location.of("/none"),
                  {part.name: part}, _index(held, part))  # fmt: skip


def _array(names: list[str | None]) -> Any:
    import pyarrow as pa

    return pa.array(names, pa.string())


def _index(held: dict[tuple[str, str], str], part: Part) -> AnswerIndex:
    import pyarrow as pa

    rows = {image: ([], []) for image, _ in held}
    for (image, cell), status in held.items():
        rows[image][status != "ok"].append(cell)
    columns = {
        "image": pa.array([bytes.fromhex(image) for image in rows], pa.binary(16)),
        "part": pa.array([f"{part.digest} {part.name}"] * len(rows), pa.string()).dictionary_encode(),
        "ok": pa.array([" ".join(ok) for ok, _ in rows.values()], pa.string()).dictionary_encode(),
        "failed": pa.array([" ".join(failed) for _, failed in rows.values()], pa.string()).dictionary_encode(),
        "quarantined": pa.array([""] * len(rows), pa.string()).dictionary_encode(),
    }
    return AnswerIndex(pa.table(columns, schema=index.SCHEMA))


def pairs_of(item: WorkItem, layout: list[list[int]]) -> list[tuple[str, str]]:
    """What an item asks, as (image id, cell)."""
    return [(NAMES[layout[int(item.shard.name)][row]], cell) for row in item.rows for cell in item.cells]


layouts = st.lists(st.lists(st.integers(-1, PICTURES - 1), max_size=12), min_size=1, max_size=4)


@settings(deadline=None)
@given(
    runs=st.lists(
        st.tuples(
            layouts,  # how the pictures lie in shards at the time of the run
            st.integers(1, 15),  # its chunk size
            st.sets(st.sampled_from(range(len(CELLS))), min_size=1),  # the cells it asks for
            st.booleans(),  # whether it tries failures again
            st.lists(st.sampled_from(["ok", "failed", "lost"]), min_size=40, max_size=40),  # what became of its items
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_history_of_runs_and_layouts_asks_every_pair_until_it_is_there_and_no_more(runs: list[Any]) -> None:
    held: dict[tuple[str, str], str] = {}
    for layout, chunk, wanted, retry, outcomes in runs:
        cells = [CELLS[number] for number in sorted(wanted)]
        lacking = demand(layout, held, cells)
        items = lacking.work(cells, chunk, retry_failed=retry)
        asked = [pair for item in items for pair in pairs_of(item, layout)]
        there = {pair for pair, status in held.items() if status == "ok" or not retry}
        pictures = {NAMES[row] for rows in layout for row in rows if row >= 0}
        assert sorted(asked) == sorted({(name, cell.id) for name in pictures for cell in cells} - there)
        assert all(len(item.rows) <= chunk for item in items)
        assert sum(item.captions for item in items) == len(asked)
        assert len({item.part for item in items}) == len(items)
        for item, outcome in zip(items, outcomes, strict=False):
            if outcome != "lost":
                held |= dict.fromkeys(pairs_of(item, layout), outcome)
    counts = demand(runs[-1][0], held, CELLS).totals()
    rows = [NAMES[row] for shard in runs[-1][0] for row in shard if row >= 0]
    for cell in CELLS:
        assert counts[cell.id]["captions"] == sum(held.get((name, cell.id)) == "ok" for name in rows)
        assert counts[cell.id]["errors"] == sum(held.get((name, cell.id)) == "failed" for name in rows)


def test_an_untouched_shard_is_cut_into_chunks() -> None:
    items = demand([list(range(20))], {}, CELLS).work(CELLS, 8, retry_failed=False)
    assert [item.rows for item in items] == [tuple(range(8)), tuple(range(8, 16)), tuple(range(16, 20))]
    assert all(item.cells == tuple(cell.id for cell in CELLS) for item in items)


def test_a_chain_names_the_parts_that_hold_its_parents_answers() -> None:
    both = {"set": "holism", "only": ["main_object", "attributes"]}
    parent, child = plan(prompts=both)
    assert (child.parent, child.depth) == (parent.id, 1)
    held = {(name, parent.id): "ok" for name in NAMES[:10]}
    items = demand([list(range(10))], held, [parent, child]).work([parent, child], 64, retry_failed=False)
    assert [(item.rows, item.cells) for item in items] == [(tuple(range(10)), (child.id,))]
    assert items[0].sources == ("captions/0/a.parquet",)


def test_the_index_is_kept_on_disk_and_made_again_from_the_parts(tmp_path: Path) -> None:
    log = CommitLog(Location.of(tmp_path))

    def commit(name: str, images: range, cell: str, status: str = "ok") -> None:
        error = None if status == "ok" else "quarantined: the engine died"
        rows = [{"image_id": NAMES[i], "cell": cell, "status": status, "error": error} for i in images]
        data = schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS)
        log.commit(f"captions/{name}.parquet", data, rows=len(rows), cells=[cell])

    def known() -> list[tuple[Any, ...]]:
        loaded = index.load(log.folder, log.parts(), save=True)
        places = loaded.look_up(index.ids(_array(NAMES[:8])))
        return [(loaded.answers_of(place), loaded.parts_of(np.array([place]))) for place in places.tolist()]

    commit("a", range(5), "x")
    commit("b", range(3, 7), "y")
    commit("c", range(2), "y", "error")
    first = known()
    assert first[0][0] == index.Answers(frozenset("x"), frozenset("y"), frozenset("y"))
    assert first[3] == (index.Answers(frozenset("xy")), {"captions/a.parquet", "captions/b.parquet"})
    assert first[7] == (index.NOTHING, set())
    files = list((tmp_path / index.INDEX).iterdir())
    assert known() == first
    assert list((tmp_path / index.INDEX).iterdir()) == files  # nothing was new
    for number in range(index.MANY_SEGMENTS + 1):
        commit(f"more {number}", range(2, 3), f"z{number}")
        known()
    assert len(list((tmp_path / index.INDEX).iterdir())) < index.MANY_SEGMENTS
    latest = known()
    for file in (tmp_path / index.INDEX).iterdir():
        file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    assert known() == latest
    (tmp_path / "captions" / "a.parquet").unlink()  # a part that is gone answers nothing
    assert known()[3][0] == index.Answers(frozenset("y"))


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
