"""Pictures of more than 8 bits: what is seen of them, by everybody."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning.asking.questions import decode as as_captioned
from pipeline.ingest.inspect import inspect
from pipeline.pictures import decode, upright, upright_rgb
from pipeline.thumbnails import for_browser
from tests.pipeline.images import config, ingest, put, rows
from tests.pipeline.tiffs import grey_tiff
from training.preprocess import make_preprocess, preprocessing

GREY = np.linspace(0, 255, 256).astype(np.uint8)[None, :].repeat(3, axis=0)  # of a picture of 8 bits
PHOTO = np.random.default_rng(0).integers(20, 200, (12, 16), dtype=np.uint8)  # that uses part of its range
SHARE = GREY / 255


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


def grey(data: bytes) -> np.ndarray:
    """The levels of a picture that has to be grey, and of 8 bits."""
    picture = decode(data)[0]
    assert picture.mode == "RGB"
    seen = np.asarray(picture)
    assert (seen == seen[..., :1]).all()
    return seen[..., 0]


def wide(pixels: np.ndarray, kind: str = "<u2") -> np.ndarray:
    """The same picture in 16 bits."""
    return (pixels.astype(np.uint32) * 257).astype(kind)


@pytest.mark.parametrize("pixels", [GREY, PHOTO, np.full((4, 4), 128, np.uint8), np.zeros((4, 4), np.uint8)])
def test_a_picture_of_16_bits_looks_as_in_8(pixels: np.ndarray) -> None:
    files = {
        "png": encoded(wide(pixels)),
        "tiff": grey_tiff(wide(pixels)),
        "big-endian tiff": grey_tiff(wide(pixels, ">u2")),
        "compressed tiff": encoded(wide(pixels), "TIFF", compression="tiff_adobe_deflate"),
        "pgm": b"P5 %d %d 65535\n" % pixels.shape[::-1] + wide(pixels, ">u2").tobytes(),
        "white is zero": grey_tiff(65535 - wide(pixels), white_is_zero=True),
    }
    for name, data in files.items():
        assert np.array_equal(grey(data), pixels), name


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_values_of_fewer_bits_in_16_are_seen(bits: int) -> None:
    values = np.rint(SHARE * ((1 << bits) - 1)).astype(np.uint16)
    assert np.array_equal(grey(encoded(values)), GREY)
    assert np.array_equal(grey(grey_tiff(values)), GREY)


def test_a_declared_depth_counts_and_not_the_values() -> None:
    packed = np.frombuffer(bytes.fromhex("0ff1ff3ff0ff"), np.uint8)[None]  # 255, 511, 1023, 255 in 12 bits each
    assert grey(grey_tiff(packed, bits=12)).tolist() == [[16, 32, 64, 16]]
    assert grey(b"P5 2 1 65535\n" + bytes([0, 255, 255, 255])).tolist() == [[1, 255]]
    assert grey(b"P5 2 1 4095\n" + bytes([0, 255, 1, 255])).tolist() == [[16, 32]]


@pytest.mark.parametrize(
    "values",
    [
        SHARE.astype("<f4"),
        SHARE.astype(">f4") * 0.001,
        SHARE.astype("<f4") * 2 - 1,
        (SHARE * 6e38 - 3e38).astype("<f4"),
        np.rint(SHARE * 65535).astype("<i4"),
        np.rint(SHARE * 4000 - 1000).astype("<i2"),
        np.rint(SHARE * 4000 - 1000).astype(">i2"),
        np.rint(SHARE * (2**32 - 1)).astype("<u4"),
        np.rint((SHARE - 0.5) * 4e9).astype("<i4"),
    ],
    ids=lambda values: f"{values.dtype.str} {values.min():g} {values.max():g}",
)
def test_signed_wide_and_float_values_are_scaled_from_their_range(values: np.ndarray) -> None:
    assert np.abs(grey(grey_tiff(values)).astype(int) - GREY).max() <= 1


def test_values_that_are_no_numbers_take_no_part_in_the_range() -> None:
    values = np.array([[np.nan, -np.inf, 2, 3, 4, np.inf]], "<f4")
    assert grey(grey_tiff(values)).tolist() == [[0, 0, 0, 128, 255, 255]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((2, 2), np.nan, "<f4"), "no pixel of it is a finite number"),
        (np.full((2, 2), 0.5, "<f4"), "all its pixels are 0.5, and what shade"),
        (np.full((2, 2), -7, "<i2"), "all its pixels are -7, and what shade"),
    ],
)
def test_what_cannot_be_told_is_an_error_row_with_a_reason(values: np.ndarray, reason: str) -> None:
    found = inspect(grey_tiff(values))
    assert found.error is not None
    assert reason in found.error


def test_transparent_values_of_16_bits_are_white() -> None:
    data = encoded(np.array([[0, 30000, 65535]], np.uint16), transparency=30000)
    assert grey(data).tolist() == [[0, 255, 255]]
    assert np.asarray(upright(Image.open(io.BytesIO(data))))[0, :, 3].tolist() == [255, 0, 255]


def test_a_transparent_colour_of_16_bits_is_white() -> None:
    data = encoded(np.dstack([PHOTO] * 3))
    header, rest = data[:33], data[33:]
    key = b"tRNS" + struct.pack(">HHH", *[256 * int(PHOTO[0, 0]) + 7] * 3)
    keyed = header + struct.pack(">I", 6) + key + struct.pack(">I", zlib.crc32(key)) + rest
    expected = np.where(PHOTO[0, 0] == PHOTO, 255, PHOTO)
    assert np.array_equal(grey(keyed), expected)


def test_premultiplied_grey_is_put_on_white() -> None:
    pixels = np.dstack([np.full((2, 2), 50, np.uint8), np.full((2, 2), 128, np.uint8)])
    seen = np.asarray(upright_rgb(Image.frombytes("La", (2, 2), pixels.tobytes())))
    assert np.abs(seen.astype(int) - (50 + 127)).max() <= 1


def test_everybody_sees_the_same(tmp_path: Path) -> None:
    """Ingest that stores smaller pictures, captioning, training and evaluation, and the browser."""
    pixels = np.asarray(Image.fromarray(PHOTO).resize((64, 64)))
    for name, values in {"8": pixels, "16": wide(pixels)}.items():
        put(tmp_path / name / "a.png", encoded(values))
    stored = [
        rows(ingest(tmp_path / f"ws{name}", config({"kind": "folder", "path": str(tmp_path / name)}, resize=32)))
        for name in ("8", "16")
    ]
    assert stored[0][0]["image_id"] == stored[1][0]["image_id"], "the same bytes were stored"
    small, deep = encoded(pixels), encoded(wide(pixels))
    assert as_captioned(small, 900).tobytes() == as_captioned(deep, 900).tobytes()
    preprocess = make_preprocess(preprocessing(16, (0.5,) * 3, (0.5,) * 3))
    assert preprocess(Image.open(io.BytesIO(small))).equal(preprocess(Image.open(io.BytesIO(deep))))
    shown, kind = for_browser(deep)
    assert kind == "image/png"
    assert np.array_equal(grey(shown), pixels)
    assert for_browser(small) == (small, "image/png")
    assert for_browser(encoded(pixels, "TIFF"))[1] == "image/png", "no browser shows a TIFF"
