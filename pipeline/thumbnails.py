"""Pictures for HTML pages: small ones as data URIs, for pages that must not depend on any file, and whole ones."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pipeline import levels
from pipeline.pictures import decode

SIDE = 96
QUALITY = 82
SHOWN = {  # what every browser shows
    **{name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")},
    "MPO": "image/jpeg",
}


def thumbnail(data: bytes) -> str:
    """An encoded picture at no more than 96 pixels a side."""
    image, _ = decode(data, lambda *_: (SIDE, SIDE))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return data_uri(image)


def for_browser(data: bytes) -> tuple[bytes, str]:
    """An encoded picture, and its media type: as it is if a browser shows it as models see it, else as PNG."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.format in SHOWN and not levels.is_deep(opened):
            return data, SHOWN[opened.format]
    buffer = io.BytesIO()
    decode(data)[0].save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), SHOWN["PNG"]


def data_uri(image: Image.Image) -> str:
    """A picture as text: JPEG in base64."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
