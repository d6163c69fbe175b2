"""The measure store: every value is computed once, and what comes back does not depend on what was there before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.curate.measures.store import MeasureStore
from pipeline.storage import Location


class Ruler:
    """A measure of width 2 that notes what it was asked for: length and the first letter's code, in thirds."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids, self.asked = ids, list[str]()

    def __call__(self, positions: Sequence[int]) -> np.ndarray:
        self.asked += [self.ids[position] for position in positions]
        return truth([self.ids[position] for position in positions])


def truth(ids: Sequence[str]) -> np.ndarray:
    return np.array([[len(name) / 3, ord(name[0]) / 3] for name in ids], np.float32).reshape(-1, 2)


def measure(store: MeasureStore, ids: Sequence[str], shard: str = "a") -> list[str]:
    """Check the values of these ids, and say which of them were computed."""
    ruler = Ruler(ids)
    values = store.values(shard, ids, ruler)
    np.testing.assert_array_equal(values, truth(ids))
    assert values.dtype == np.float32
    return ruler.asked


@pytest.mark.parametrize("folder", ["local", "memory"])
def test_nothing_is_computed_twice(folder: str, tmp_path: Path) -> None:
    root = Location.of(tmp_path if folder == "local" else "memory://measures/nothing-twice")
    store = MeasureStore(root, "length", "0123456789abcdef", 2)
    assert measure(store, ["b", "aa", "b", "c"]) == ["b", "aa", "c"]
    assert measure(store, ["c", "dd", "b", "b"]) == ["dd"]
    assert measure(store, ["b", "dd"]) == []
    assert measure(store, []) == []
    again = MeasureStore(root, "length", "0123456789abcdef", 2)
    assert measure(again, ["aa", "dd", "c", "b"]) == []
    assert measure(again, ["aa"], shard="another") == ["aa"]
    assert measure(MeasureStore(root, "length", "another model!", 2), ["aa"]) == ["aa"]
    assert (root / "length-0123456789ab" / "a.parquet").exists()


@given(requests=st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "d", "ee", "ü"]), max_size=8), max_size=5))
def test_each_id_is_computed_once_in_any_history(requests: list[list[str]]) -> None:
    root = Location.of("memory://measures/history")
    root.remove(recursive=True)
    computed = [name for ids in requests for name in measure(MeasureStore(root, "m", "digest", 2), ids)]
    assert sorted(computed) == sorted({name for ids in requests for name in ids})


def test_a_part_does_not_depend_on_the_order_in_which_it_grew(tmp_path: Path) -> None:
    for name, requests in {"one": (["a", "b", "cc"],), "two": (["cc", "b"], ["b", "a"])}.items():
        for ids in requests:
            measure(MeasureStore(Location.of(tmp_path / name), "m", "digest", 2), ids)
    one, two = (pq.read_table(tmp_path / name / "m-digest" / "a.parquet") for name in ("one", "two"))
    assert one.equals(two)
    assert one["id"].to_pylist() == ["a", "b", "cc"]


@pytest.mark.parametrize("damage", [b"", b"PAR1 torn", None])
def test_a_torn_or_foreign_part_is_made_anew(damage: bytes | None, tmp_path: Path) -> None:
    store = MeasureStore(Location.of(tmp_path), "m", "digest", 2)
    measure(store, ["a", "bb"])
    part = store.folder / "a.parquet"
    if damage is None:  # a part of another width under this name
        ids = ["a", "bb"]
        MeasureStore(Location.of(tmp_path), "m", "digest", 1).values("a", ids, lambda at: np.ones((len(at), 1)))
    else:
        part.write(damage or part.read()[:-20])
    assert measure(store, ["bb", "a"]) == ["bb", "a"]
    assert measure(store, ["bb", "a"]) == []


def test_half_precision_rounds_what_is_computed_as_what_is_remembered(tmp_path: Path) -> None:
    store = MeasureStore(Location.of(tmp_path), "m", "digest", 3, dtype=np.float16)
    exact = np.array([[0.1, 1 / 3, np.nan]], np.float32)
    first = store.values("a", ["x"], lambda _: exact)
    second = store.values("a", ["x"], lambda _: pytest.fail("computed twice"))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, exact, atol=1e-3)


def test_a_measure_of_the_wrong_shape_is_refused_and_not_stored(tmp_path: Path) -> None:
    store = MeasureStore(Location.of(tmp_path), "m", "digest", 2)
    with pytest.raises(ValueError, match="width 2 for 1 ids"):
        store.values("a", ["x"], lambda _: np.ones((2, 2)))
    assert measure(store, ["x"]) == ["x"]


def test_values_that_were_damaged_are_computed_again(tmp_path: Path) -> None:
    store = MeasureStore(Location.of(tmp_path), "length", "0123456789abcdef", 2)
    names = [f"{number:04d} {'x' * (number % 7)}" for number in range(300)]
    assert measure(store, names) == names
    (file,) = tmp_path.rglob("a.parquet")
    whole = file.read_bytes()
    for place in range(100, len(whole) - 1500, 97):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(bytes(changed))
        assert measure(store, names) in ([], names)
