"""The words of the demo world: everything a scene may hold, in one place.

Why a closed vocabulary: a captioning model small enough to live in the repository can learn it completely, and
every caption can be checked against an exact truth. Scenes still combine these words in endless ways.
"""

from __future__ import annotations

SHAPES = (
    "star", "heart", "house", "tree", "fish", "boat", "car", "umbrella", "moon",
    "mushroom", "flower", "cup", "key", "bell", "rocket", "balloon", "butterfly", "guitar",
)  # fmt: skip

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 32, 38),
    "orange": (250, 132, 16),
    "yellow": (250, 218, 30),
    "green": (34, 158, 56),
    "cyan": (40, 206, 220),
    "blue": (32, 76, 214),
    "purple": (128, 42, 176),
    "pink": (252, 128, 186),
    "white": (246, 246, 246),
    "black": (30, 30, 34),
}

# Side of the main object in pixels; further objects are always smaller than the smallest main object.
SIZES: dict[str, int] = {"small": 40, "medium": 50, "large": 61}
OTHER_SIDES = (27, 30)

# How a background is spoken of: "a star {phrase}".
BACKGROUNDS: dict[str, str] = {
    "beach": "on a beach",
    "forest": "in a forest",
    "night sky": "in the night sky",
    "desert": "in a desert",
    "snow field": "on a snow field",
    "city": "in a city",
    "wooden table": "on a wooden table",
    "brick wall": "in front of a brick wall",
    "meadow": "in a meadow",
    "sea": "on the sea",
    "mountains": "in the mountains",
    "checkered cloth": "on a checkered cloth",
}

# How a style is spoken of: "{phrase} of a star".
STYLES: dict[str, str] = {
    "3d render": "a 3d render",
    "cartoon": "a cartoon",
    "pixel art": "a pixel art picture",
    "pencil sketch": "a pencil sketch",
    "blurry photo": "a blurry photo",
    "sepia photo": "a sepia photo",
    "night photo": "a night photo",
    "neon art": "a neon art picture",
    "watercolour": "a watercolour painting",
    "black and white photo": "a black and white photo",
    "halftone print": "a halftone print",
}

# In these styles nobody can see a colour, so the truth holds none.
COLORLESS_STYLES = frozenset({"pencil sketch", "sepia photo", "black and white photo"})

SIGNS = ("SALE", "HELLO", "OPEN", "STOP", "WOW", "2024")

PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip

RELATIONS = ("left of", "right of", "above", "below", "in front of", "behind")
