"""The one rule for what is a text: values of columns and JSON, bytes of files, names."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import texts
from pipeline.texts import Text, Texts, clean, decode, decode_name, first_text, name_key, parse_json, texts_of

CAFE = "a café"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("  a cat\n", ("a cat",)),
        ("007", ("007",)),
        (None, ()),
        (float("nan"), ()),
        (" \t\u3000\ufeff", ()),
        (b"a dog", ("a dog",)),
        (CAFE.encode(), (CAFE,)),
        (["a cat", None, "", float("nan"), b"one cat"], ("a cat", "one cat")),
        (("a", "b"), ("a", "b")),
        ([], ()),
    ],
)
def test_values_that_are_texts(value: Any, expected: tuple[str, ...]) -> None:
    assert texts_of(value) == Texts(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "a number"),
        (1.5, "a number"),
        (Decimal("1.50"), "a number"),
        (True, "true or false"),
        (date(2020, 1, 5), "a date"),
        (datetime(2020, 1, 5, tzinfo=UTC), "a date"),
        ({"en": "a dog"}, "an object"),
        ([["a", "b"]], "a list within a list"),
        (["a", {"en": "b"}], "an object"),
        (object(), "a object"),
    ],
)
def test_values_that_are_refused_by_their_kind(value: Any, kind: str) -> None:
    assert texts_of(value).refused == kind
    assert first_text(value).refused == kind


def test_the_first_text_is_the_first_that_is_not_empty_and_more_are_told() -> None:
    assert first_text(["", None, "a cat", "one cat"]) == Text("a cat", (texts.MORE,))
    assert first_text(["", "a cat"]) == Text("a cat")
    assert first_text([]) == Text()


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_in_unicode(mark: str) -> None:
    assert decode(f" {CAFE}\r\n".encode(mark)) == Text(CAFE)
    assert decode(b"\xfe\xff" + CAFE.encode("utf-16-be")) == Text(CAFE)


def test_other_bytes_are_windows_1252_only_if_that_is_allowed() -> None:
    data = "a café “bar”".encode("cp1252")
    assert decode(data) == Text(None, (texts.NOT_TEXT,))
    assert decode(data, "windows-1252") == Text("a café “bar”", (texts.WINDOWS,))
    assert decode(b"\x81 caf\xe9", "windows-1252").text == "\ufffd café"  # a byte that Windows-1252 does not have
    assert decode(b"\xff\xfea", "utf-8") == Text(None, (texts.NOT_TEXT,))  # half a character of UTF-16
    assert texts_of([data, b"ok"]) == Texts(("ok",), (texts.NOT_TEXT,))


def test_what_no_file_can_hold_is_mended_and_told() -> None:
    half = parse_json(b'{"caption": "party \\ud83c"}')["caption"]
    assert clean(half) == Text("party \ufffd", (texts.HALVES,))
    assert clean("a\0b") == Text("ab", (texts.NULS,))
    assert clean("\0") == Text(None, (texts.NULS,))


def test_numbers_of_json_stay_as_they_stood() -> None:
    assert parse_json('{"a": 1.50, "b": 12345678901234567890, "c": NaN, "d": [1e3]}') == {
        "a": "1.50",
        "b": "12345678901234567890",
        "c": None,
        "d": ["1e3"],
    }
    for bad in ("{", "[" * 100_000, b"\xe9", ""):
        with pytest.raises(ValueError, match=r"\w"):
            parse_json(bad)


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_it_was_a_text_can_be_stored(text: str) -> None:
    found = clean(text).text
    assert found is None or (found.encode().decode() == found.strip() and "\0" not in found)


@given(st.binary())
def test_any_name_can_be_stored_and_has_one_form(name: bytes) -> None:
    text, faults = decode_name(name)
    assert text.encode().decode() == text
    assert decode_name(os.fsdecode(name)) == (text, faults)
    assert bool(faults) == (os.fsdecode(name) != text)


def test_names() -> None:
    assert decode_name("naïve.jpg") == ("naïve.jpg", ())
    assert decode_name(b"caf\xe9.jpg") == (r"caf\xe9.jpg", (texts.NAME,))
    assert decode_name("a\ud83c.jpg") == (r"a\xed\xa0\xbc.jpg", (texts.NAME,))
    assert name_key("./a\\b//cafe\u0301.jpg") == name_key("a/b/café.jpg") == "a/b/café.jpg"
