"""What a column, a JSON field or a text file holds, as texts: one rule for every source.

Texts are texts as they are, a list gives a text for each item, null, NaN and blank are no text, bytes are decoded. All
else (numbers of a typed column, dates, objects, lists within lists) is refused: Python's way of writing a value must
never become a caption. Numbers of JSON are texts as they stood in the file, if `parse_json` read them.

Nothing is lost in silence: each function says what it left out or mended, by reason, for the caller to count.
"""

from __future__ import annotations

import codecs
import json
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

Encoding = Literal["utf-8", "windows-1252"]  # how bytes are read that are neither UTF-8 nor marked as UTF-16

NOT_TEXT = "neither UTF-8 nor UTF-16 with a mark"
WINDOWS = "read as Windows-1252"
HALVES = "half surrogates replaced by U+FFFD"
NULS = "NUL characters removed"
MORE = "more than one text, the first was used"
NAME = "a name that is not UTF-8, escaped"

_JSON = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=lambda _: None)
_HALF = re.compile("[\ud800-\udfff]")
_BLANK = "\ufeff\u200b\u2060"  # a mark or a space of no width at the ends of a text is no part of it
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float, complex, Decimal), "a number"),
    ((datetime, date, time), "a date"),
    (timedelta, "a duration"),
    (Mapping, "an object"),
    ((list, tuple), "a list within a list"),
)


class Texts(NamedTuple):
    """The texts of a value. `faults` are reasons to count; `refused` names the kind of a value that is no text."""

    texts: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    refused: str | None = None


class Text(NamedTuple):
    """One text, or None. `faults` and `refused` as in `Texts`."""

    text: str | None = None
    faults: tuple[str, ...] = ()
    refused: str | None = None


def texts_of(value: Any, encoding: Encoding = "utf-8") -> Texts:
    """The texts of a value that a reader of tables or JSON gave. `encoding` is for bytes, as in `decode`."""
    if isinstance(value, (list, tuple)):
        items = [_one(item, encoding) for item in value]
        return Texts(
            tuple(one.text for one in items if one.text is not None),
            tuple(fault for one in items for fault in one.faults),
            next((one.refused for one in items if one.refused is not None), None),
        )
    text, faults, refused = _one(value, encoding)
    return Texts((text,) if text is not None else (), faults, refused)


def first_text(value: Any, encoding: Encoding = "utf-8") -> Text:
    """The first text of a value, for places that hold one; that there were more is a fault."""
    texts, faults, refused = texts_of(value, encoding)
    return Text(texts[0] if texts else None, faults + (MORE,) * (len(texts) > 1), refused)


def decode(data: bytes, encoding: Encoding = "utf-8") -> Text:
    """The text of a file or member: UTF-8 with or without a mark, or UTF-16 with one.

    Bytes that are neither are no text, or are read as Windows-1252 if `encoding` says so. Both are faults.
    """
    try:
        return clean(data.decode("utf-16" if data.startswith(_UTF16) else "utf-8"))
    except UnicodeDecodeError:
        if encoding == "utf-8":
            return Text(None, (NOT_TEXT,))
        text, faults, _ = clean(data.decode("windows-1252", "replace"))
        return Text(text, (WINDOWS, *faults))


def clean(text: str) -> Text:
    """A text without white space and marks around it, and without what no file can hold; None if nothing is left."""
    faults: tuple[str, ...] = ()
    if "\0" in text:
        text, faults = text.replace("\0", ""), (NULS,)
    if not text.isascii():
        text, halves = _HALF.subn("\ufffd", text)
        faults += (HALVES,) * bool(halves)
        text = text.strip().strip(_BLANK)
    return Text(text.strip() or None, faults)


def parse_json(data: str | bytes) -> Any:
    """JSON with its numbers as texts, as they stood, and NaN as null. Raises `ValueError` for whatever is no JSON."""
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        return _JSON.decode(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decode_name(name: str | bytes) -> tuple[str, tuple[str, ...]]:
    r"""A file name as text, and faults. Bytes that are not UTF-8 are escaped: `caf\xe9.jpg`.

    Python itself gives such names as texts with half surrogates, which no file can hold; both give the same name.
    """
    if isinstance(name, str):
        if name.isascii() and "\0" not in name:
            return name, ()
        name = _HALF.sub(_escaped_byte, name).encode("utf-8", "surrogateescape")
    text = name.decode("utf-8", "backslashreplace")
    same = text.encode() == name and b"\0" not in name
    return text.replace("\0", r"\x00"), () if same else (NAME,)


def _escaped_byte(half: re.Match[str]) -> str:
    """Python's stand-ins for bytes stay; other half surrogates become the bytes that Unicode would give them."""
    if "\udc80" <= half[0] <= "\udcff":
        return half[0]
    return half[0].encode("utf-8", "surrogatepass").decode("ascii", "surrogateescape")


def name_key(name: str) -> str:
    """What two names of one file have in common: NFC, slashes, no `./` and `//`. A link is itself."""
    if "://" in name:
        return name
    key = posixpath.normpath(name.replace("\\", "/"))
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def kind_of(value: Any) -> str:
    """What a value is, in words, for a message that refuses it."""
    return next((words for kinds, words in _KINDS if isinstance(value, kinds)), f"a {type(value).__name__}")


def _one(value: Any, encoding: Encoding) -> Text:
    if isinstance(value, str):
        return clean(value)
    if value is None or (isinstance(value, float) and value != value):  # NaN differs from itself
        return Text()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode(bytes(value), encoding)
    return Text(refused=kind_of(value))
