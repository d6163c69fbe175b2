"""YAML of any content is plain data or one sentence, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plain_yaml import MAX_DEPTH, parse

MAPS = "b0: &b0 {k: v}\n" + "".join(
    f"b{i}: &b{i} {{{', '.join(f'k{j}: *b{i - 1}' for j in range(9))}}}\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a: caf\xe9\n".encode("latin-1"), "not UTF-8 text (at byte 6); save it as UTF-8"),
        ("a: 1".encode("utf-16"), "not UTF-8 text"),
        (b"\x00\x01\xff\xfe" * 50, "not UTF-8 text"),
        (b"\x00" * 50, "not valid YAML"),
        ("a: " + "[" * 5000 + "]" * 5000, f"nested more than {MAX_DEPTH} levels deep (line 1)"),
        ("{a: " * 5000, f"nested more than {MAX_DEPTH} levels deep"),
        ("a: &a {b: *a}", "the anchor &a holds itself (*a in line 1)"),
        ("a: &a 1\nb: &a [*a]", "the anchor &a holds itself"),
        ("a: &a 1\nb: &a 2", "duplicate anchor"),
        (MAPS, "holds more than 500,000 values with its anchors written out"),
        ("a: &a [" + "1," * 1000 + "]\nb: [" + "*a," * 1000 + "]", "holds more than"),
        ("a: 1\nb: 2\na: 3", "has the key 'a' twice, the second time in line 3; remove one"),
        ("a: !!python/object/apply:os.system [ls]", "uses the tag"),
        ("a: !!set {x}", "uses the tag"),
        ("no: 1", "has the key False, which YAML does not take for text; put it in quotes"),
        ("a: {b: [1, .inf]}", "'a.b.1' is inf, expected a finite number"),
        ("a: 1" + "0" * 400, "'a' is a number of more than 64 bits"),
        ("a: 1" + "0" * 5000, "holds a number that cannot be read"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("{[1]: 2}", "unhashable key"),
    ],
)
def test_what_is_no_plain_data_is_one_sentence(data: bytes | str, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(ConfigError) as caught:
        parse(data, "my {0} c.yaml")
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()
    assert str(caught.value).startswith("my {0} c.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dates_are_text_and_anchors_are_what_they_stand_for() -> None:
    text = "a: &a {x: 2020-01-01}\nb: {<<: *a, y: [*a, 1e3, 0x10, null, yes]}\nc: &b 1\nd: *b\n"
    assert parse(text, "c.yaml") == {
        "a": {"x": "2020-01-01"},
        "b": {"x": "2020-01-01", "y": [{"x": "2020-01-01"}, "1e3", 16, None, True]},
        "c": 1,
        "d": 1,
    }
    assert parse("\ufeffa: é".encode(), "c.yaml") == {"a": "é"}


@given(st.binary(max_size=60) | st.text("{}[]&*a:,- \n'\"!?|>#%@1.", max_size=40))
def test_any_bytes_are_json_data_or_a_sentence(data: bytes | str) -> None:
    with contextlib.suppress(ConfigError):
        found = parse(data, "c.yaml")
        assert json.loads(json.dumps(found, allow_nan=False)) == found
