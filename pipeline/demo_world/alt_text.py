"""The short text that the web would have put beside a picture: often thin, sometimes wrong, sometimes useless."""

from __future__ import annotations

import numpy as np

from pipeline.demo_world.language import Truth, colored
from pipeline.demo_world.vocabulary import BACKGROUNDS, SHAPES, STYLES

_USELESS = (
    "IMG_{n}.jpg", "DSC0{n}", "free download", "image", "stock photo {n}", "untitled", "wallpaper hd {n}", "see more",
)  # fmt: skip
_KINDS = ("useless", "wrong", "object", "colored", "placed", "styled")
_SHARES = (0.15, 0.10, 0.20, 0.25, 0.20, 0.10)


def true_alt_texts(t: Truth) -> dict[str, str]:
    """What an alt text that is about its picture says, by what it names."""
    main = t["main"]
    return {
        "object": main["shape"],
        "colored": colored(main),
        "placed": f"{main['shape']} {BACKGROUNDS[t['background']]}",
        "styled": f"{STYLES[t['style']].split(' ', 1)[1]} {main['shape']}",
    }


def alt_text(t: Truth, rng: np.random.Generator) -> str:
    """One noisy alt text: 15 % useless, 10 % about something else, the rest true but saying little."""
    kind = str(rng.choice(_KINDS, p=_SHARES))
    main = t["main"]
    if kind == "useless":
        return _USELESS[rng.integers(len(_USELESS))].format(n=int(rng.integers(1000, 9999)))
    if kind == "wrong":
        present = {main["shape"], *(other["shape"] for other in t["others"])}
        absent = [shape for shape in SHAPES if shape not in present]
        return f"{absent[rng.integers(len(absent))]} {int(rng.integers(10, 99))}"
    text = true_alt_texts(t)[kind]
    return text.title() if rng.random() < 0.3 else text
