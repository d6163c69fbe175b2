"""Identities: equal content, equal name; anything else, another name."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import ID_LENGTH, bag, canonical, caption_id, digest, fingerprint, image_id, union

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_order_of_keys_and_a_round_trip_through_json_do_not_matter(value: Any) -> None:
    assert digest(json.loads(json.dumps(value))) == digest(value)
    if isinstance(value, dict):
        assert digest(dict(reversed(list(value.items())))) == digest(value)
    assert json.loads(canonical(value)) == value


@given(JSON, JSON)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


def test_digests_are_the_same_in_another_process() -> None:
    code = "from pipeline.identity import digest; print(digest({'b': [1, 'ä'], 'a': None}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == digest({"a": None, "b": [1, "ä"]})
    assert len(out) == ID_LENGTH


def test_image_id_is_the_hash_of_the_bytes() -> None:
    assert image_id(b"") == "e3b0c44298fc1c149afbf4c8996fb924"  # SHA-256 of nothing, first 128 bits
    assert image_id(b"a") != image_id(b"b")


@given(
    st.lists(
        st.sampled_from(["image", "prompt", "model", "revision", "temperature", "max_pixels", "sample"]), min_size=1
    )
)
def test_every_part_of_the_question_enters_the_caption_id(changed: list[str]) -> None:
    def made(marked: set[str]) -> str:
        def pick(name: str, one: Any, other: Any) -> Any:
            return other if name in marked else one

        return caption_id(
            pick("image", "i", "j"),
            pick("prompt", "p", "q"),
            pick("model", "m", "n"),
            pick("revision", "1", "2"),
            {"temperature": pick("temperature", 0.0, 0.5), "top_p": 1},
            pick("max_pixels", None, 1000),
            pick("sample", 0, 1),
        )

    assert made(set(changed)) != made(set())
    assert made(set(changed)) == made(set(changed))


def test_a_fingerprint_depends_on_everything_that_decides_a_result() -> None:
    base = fingerprint("train", 1, {"lr": 1}, {"curate": "a", "ingest": "b"})
    assert base == fingerprint("train", 1, {"lr": 1}, {"ingest": "b", "curate": "a"})
    others = [
        fingerprint("curate", 1, {"lr": 1}, {"curate": "a", "ingest": "b"}),
        fingerprint("train", 2, {"lr": 1}, {"curate": "a", "ingest": "b"}),
        fingerprint("train", 1, {"lr": 2}, {"curate": "a", "ingest": "b"}),
        fingerprint("train", 1, {"lr": 1}, {"curate": "b", "ingest": "a"}),
    ]
    assert len({base, *others}) == 5


@given(rows=st.lists(st.tuples(st.integers(), st.text()), max_size=12), data=st.data())
def test_a_bag_is_the_same_however_its_rows_are_ordered_and_cut(
    rows: list[tuple[int, str]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    assert bag(rows) == bag(shuffled) == union([bag(shuffled[:cut]), bag(shuffled[cut:])])
    if rows:
        assert bag(rows) != bag(rows[1:])
        assert bag([*rows, rows[0]]) != bag(rows)  # a row that is there twice counts twice
