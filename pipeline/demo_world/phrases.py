"""What the demo world says about each of its words: parts, doings, looks, moods. Pure data.

No phrase names a colour, since some styles show none.
"""

from __future__ import annotations

# Shape: its parts, and what it does ("the boat {doing}").
PARTS: dict[str, str] = {
    "star": "five pointed rays",
    "heart": "two round lobes and a tip",
    "house": "a roof, two windows and a door",
    "tree": "three layers of branches and a trunk",
    "fish": "a tail, a fin and an eye",
    "boat": "a hull, a mast and two sails",
    "car": "two wheels and two windows",
    "umbrella": "a canopy and a curved handle",
    "moon": "a curved back and two craters",
    "mushroom": "a dotted cap and a stem",
    "flower": "six petals, a stem and a leaf",
    "cup": "a handle and steam on top",
    "key": "a round bow and two teeth",
    "bell": "a ring on top and a clapper",
    "rocket": "a round window, two fins and a flame",
    "balloon": "a knot and a string",
    "butterfly": "four wings and two feelers",
    "guitar": "a neck, strings and a sound hole",
}

DOINGS: dict[str, str] = {
    "star": "shines", "heart": "beats", "house": "stands still", "tree": "grows", "fish": "swims", "boat": "sails",
    "car": "drives", "umbrella": "keeps off the rain", "moon": "glows", "mushroom": "sprouts", "flower": "blooms",
    "cup": "steams", "key": "waits for a lock", "bell": "rings", "rocket": "takes off", "balloon": "floats",
    "butterfly": "flutters", "guitar": "waits for a player",
}  # fmt: skip

# Background: what is seen there, and the mood it lends.
SCENERY: dict[str, tuple[str, str]] = {
    "beach": ("sand, waves and open sky", "carefree"),
    "forest": ("dense trunks and leaves", "secretive"),
    "night sky": ("many small stars", "dreamy"),
    "desert": ("dunes and cacti", "lonely"),
    "snow field": ("fresh snow and distant firs", "chilly"),
    "city": ("tall buildings with lit windows", "busy"),
    "wooden table": ("long planks with knots", "homely"),
    "brick wall": ("rows of bricks and mortar", "plain"),
    "meadow": ("grass and tiny blossoms", "cheerful"),
    "sea": ("rows of rolling waves", "wide"),
    "mountains": ("snowy peaks", "majestic"),
    "checkered cloth": ("a pattern of squares", "neat"),
}

# Style: how it looks, its feeling, and what such a picture is for.
MANNERS: dict[str, tuple[str, str, str]] = {
    "3d render": ("clean shading and crisp edges", "polished", "an advertisement"),
    "cartoon": ("thick outlines and flat paint", "funny", "a comic book"),
    "pixel art": ("large square pixels", "playful", "a video game"),
    "pencil sketch": ("thin lines and hatching on paper", "thoughtful", "an artist's notebook"),
    "blurry photo": ("soft focus and smeared details", "hazy", "a quick snapshot to share"),
    "sepia photo": ("faded tones and old grain", "nostalgic", "a family album"),
    "night photo": ("deep shadows and a single lamp", "mysterious", "a thriller cover"),
    "neon art": ("glowing lines on a dim ground", "electric", "a night club poster"),
    "watercolour": ("pale washes and a ragged border", "gentle", "a greeting card"),
    "black and white photo": ("gray tones and film grain", "serious", "a newspaper"),
    "halftone print": ("a screen of printed dots", "bold", "a pop art poster"),
}

PLACE_PHRASES: dict[str, str] = {
    "top left": "at the top left", "top": "at the top", "top right": "at the top right",
    "left": "on the left", "centre": "in the centre", "right": "on the right",
    "bottom left": "at the bottom left", "bottom": "at the bottom", "bottom right": "at the bottom right",
}  # fmt: skip

RELATION_PHRASES: dict[str, str] = {
    "left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below",
    "in front of": "in front of", "behind": "behind",
}  # fmt: skip

NUMBERS = ("no", "one", "two", "three", "four")
