"""Pictures are told by their first bytes; HEIC needs a plug-in, and the message says which."""

from __future__ import annotations

import base64
import importlib.util
import sys

import pytest

from pipeline import picture_kinds, pictures
from pipeline.ingest.inspect import inspect
from tests.pipeline.images import picture

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABoAABAAAAAAAAACcAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/Glw"
    "cnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABA"
    "AAAAQAAAAChjbGFwAAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYEC"
    "AwWEAAAAL21kYXQAAAAjKAGvBBITjOD46cJoP91R/FqVtJ7yftCrK+NJn3exGJKp/6A="
)
HAS_PLUG_IN = importlib.util.find_spec("pillow_heif") is not None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
def test_first_bytes_tell_the_kind(kind: str) -> None:
    data = picture(0, kind=kind)
    assert picture_kinds.kind_of(data[: picture_kinds.HEAD]) == kind
    assert inspect(data).format == kind


@pytest.mark.parametrize(
    "data", [b"", b"BM is a text", b"P1 too", b"RIFF\0\0\0\0WAVE", b"%PDF-1.7", b"\0\0\0\x18ftypmp42"]
)
def test_other_files_are_no_pictures(data: bytes) -> None:
    assert picture_kinds.kind_of(data) is None


def test_heic_without_the_plug_in_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    monkeypatch.setattr(picture_kinds, "readable", picture_kinds.readable.__wrapped__)
    assert picture_kinds.kind_of(HEIC[: picture_kinds.HEAD]) == "HEIF"
    assert "the extra heif: uv pip install pillow-heif" in str(inspect(HEIC).error)


@pytest.mark.skipif(not HAS_PLUG_IN, reason="needs pillow-heif")
def test_heic_with_the_plug_in_is_a_picture_for_everybody() -> None:
    found = inspect(HEIC)
    assert (found.error, found.format, found.width) == (None, "HEIF", 16)
    decoded, size = pictures.decode(HEIC)
    assert (decoded.mode, size) == ("RGB", (16, 16))
