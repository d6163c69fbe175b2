"""An encoded picture as people see it: upright, in RGB of 8 bits, on white where it is transparent.

The same for everybody: a model has to be trained and measured on the picture that was described, and cameras store
pictures unturned, with an EXIF orientation. `levels` says what is seen of more than 8 bits.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

from pipeline import levels, picture_kinds

picture_kinds.readable()  # registers plug-ins with Pillow

Size = tuple[int, int]  # width, height
_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def decode(data: bytes, needed: Callable[[int, int], Size] | None = None) -> tuple[Image.Image, Size]:
    """The picture, and the size that it has in full.

    `needed` says, of a full width and height, what size the caller scales it to: a JPEG is then decoded at a coarser
    scale, not below that. Raises whatever the decoder raises on damaged bytes.
    """
    with Image.open(io.BytesIO(data)) as opened:
        # Pillow's reader of TIFFs turns them by itself, and says so in the size.
        sideways = opened.format != "TIFF" and _orientation(opened) in _SIDEWAYS
        full = _swapped(opened.size, sideways)
        if needed is not None:
            opened.draft("RGB", _swapped(needed(*full), sideways))
        return upright_rgb(opened), full


def upright_rgb(opened: Image.Image) -> Image.Image:
    """An opened picture of any mode as people see it. The result has no EXIF orientation any more."""
    picture = upright(opened)
    if picture.mode == "RGBA":
        layer, picture = picture, Image.new("RGB", picture.size, "white")
        picture.paste(layer, mask=layer.getchannel("A"))
    picture.info = {}  # PIL hands the EXIF orientation on to copies
    return picture


def upright(opened: Image.Image) -> Image.Image:
    """The same before it is put on white, in RGBA where it is transparent. It still has the notes of the opened one.

    Raises `ValueError` for pixels that nobody knows how to show.
    """
    layer = levels.in_8_bits(opened) if levels.is_deep(opened) else opened
    clear = layer.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # a colour of 16 bits; Pillow keeps the upper 8 of all others
        layer = layer.copy()
        layer.info["transparency"] = tuple(value >> 8 for value in clear)
    if layer.mode == "La":  # premultiplied grey, which Pillow converts to nothing else
        layer = layer.convert("LA")
    picture = layer.convert("RGBA" if layer.has_transparency_data else "RGB")
    turn = _TURN.get(_orientation(opened))  # asked of the loaded picture, which may have been turned by its reader
    return picture if turn is None else picture.transpose(turn)


def _orientation(opened: Image.Image) -> int:
    try:
        return int(opened.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data is none
        return 1


def _swapped(size: Size, sideways: bool) -> Size:
    return (size[1], size[0]) if sideways else size
