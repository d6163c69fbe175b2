"""Small pictures as data URIs, for pages that must not depend on any file."""

from __future__ import annotations

import base64
import io

from PIL import Image

from pipeline.pictures import decode

SIDE = 96
QUALITY = 82


def thumbnail(data: bytes) -> str:
    """An encoded picture at no more than 96 pixels a side."""
    image, _ = decode(data, lambda *_: (SIDE, SIDE))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return data_uri(image)


def data_uri(image: Image.Image) -> str:
    """A picture as text: JPEG in base64."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
