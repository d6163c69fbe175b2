"""Encoded pictures as people see them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.pictures import decode, upright_rgb

WIDTH, HEIGHT = 64, 48


def lopsided() -> Image.Image:
    """Four quarters of different colours, so that no turn leaves it as it is."""
    quarters = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    quarters[: HEIGHT // 2, : WIDTH // 2] = (220, 30, 30)
    quarters[: HEIGHT // 2, WIDTH // 2 :] = (30, 220, 30)
    quarters[HEIGHT // 2 :, : WIDTH // 2] = (30, 30, 220)
    quarters[HEIGHT // 2 :, WIDTH // 2 :] = (220, 220, 30)
    return Image.fromarray(quarters)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def noted(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_pictures_are_turned_as_their_camera_noted(orientation: int, kind: str) -> None:
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(lopsided(), kind, exif=noted(orientation), **options)
    picture, full = decode(data)
    assert decode(data, lambda *full: full)[1] == full
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert picture.size == full == expected.size
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_no_smaller_than_needed(orientation: int) -> None:
    large = lopsided().resize((WIDTH * 16, HEIGHT * 16))
    data = encoded(large, "JPEG", exif=noted(orientation))
    asked: list[tuple[int, int]] = []

    def needed(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return width // 4, height // 4

    picture, full = decode(data, needed)
    upright = (WIDTH * 16, HEIGHT * 16) if orientation == 1 else (HEIGHT * 16, WIDTH * 16)
    assert full == upright == asked[0]
    assert picture.size == (upright[0] // 4, upright[1] // 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(256, 192), (640, 480), (1000, 1024), (1500, 700)])
def test_a_coarser_decoding_is_the_whole_ones_resized(size: tuple[int, int], orientation: int) -> None:
    """Edges and fine noise as photos have them: to 2 grey levels on the mean, 1 % of the values differ by over 16."""
    rng = np.random.default_rng(0)
    edges = lopsided().resize((16, 12)).resize(size, Image.Resampling.NEAREST).rotate(17)
    data = encoded(
        Image.fromarray(np.clip(np.asarray(edges) + rng.normal(0, 4, (*size[::-1], 3)), 0, 255).astype(np.uint8)),
        "JPEG", quality=88, exif=noted(orientation),
    )  # fmt: skip
    side = (224, 224)
    coarse, full = decode(data, lambda *_: side)
    whole, same = decode(data)
    assert full == same == whole.size
    assert min(coarse.size) >= min(side[0], *full)
    one, other = (np.asarray(p.resize(side, Image.Resampling.BICUBIC), dtype=float) for p in (coarse, whole))
    assert np.abs(one - other).mean() < 2
    assert (np.abs(one - other) > 16).mean() < 0.01


def test_transparency_is_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30] * 256)
    for data in (encoded(clear), encoded(palette, transparency=0)):
        assert decode(data)[0].getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "LA", "P", "RGBA"])
def test_pictures_of_8_bits_are_seen_as_pillow_converts_them(mode: str) -> None:
    """An opaque picture of every mode; CMYK also as Adobe stores it in JPEGs, upside down."""
    picture = lopsided().convert(mode)
    kinds = ["TIFF", "JPEG"] if mode == "CMYK" else ["TIFF" if mode == "YCbCr" else "PNG"]
    for kind in kinds:
        seen = decode(encoded(picture, kind, **({"quality": 95} if kind == "JPEG" else {})))[0]
        expected = np.asarray(picture.convert("RGB"))
        assert seen.mode == "RGB"
        assert np.abs(np.asarray(seen).astype(int) - expected).max() <= (12 if kind == "JPEG" else 0), kind


def test_a_damaged_note_is_none() -> None:
    data = encoded(lopsided(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
    assert decode(data)[1] == (WIDTH, HEIGHT)


def test_damaged_bytes_raise() -> None:
    with pytest.raises(OSError, match="truncated"):
        decode(encoded(lopsided())[:-30])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_is_turned_once_however_often_it_is_seen(kind: str) -> None:
    """Decoding and a model's preprocessing both make it upright; PIL hands the camera's note on to copies."""
    data = encoded(lopsided(), kind, exif=noted(6))
    opened = Image.open(io.BytesIO(data))
    once, decoded = upright_rgb(opened), decode(data)[0]
    assert once.size == (HEIGHT, WIDTH)
    for again in (upright_rgb(once), upright_rgb(decoded), upright_rgb(opened), upright_rgb(opened.convert("RGB"))):
        assert np.array_equal(np.asarray(again), np.asarray(once))
