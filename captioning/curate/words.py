"""What counts as a word: the unit of length limits, loops and similarity.

Chinese and Japanese are written without spaces; there every character counts as one word.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+(?:['’\-][^\W_{_NO_SPACES}]+)*")
_NO_WORD = {code: " " for code in range(128) if chr(code) not in string.ascii_letters + string.digits}


@lru_cache(maxsize=16_384)  # whoever has no draft at hand asks for the words of the same texts again and again
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation."""
    text = text.lower()
    if text.isascii() and "'" not in text and "-" not in text:  # most captions, and three times as fast
        return tuple(text.translate(_NO_WORD).split())
    return tuple(WORD.findall(text))


def singular(word: str) -> str:
    """An English noun with its number folded: `boats` and `boat`, `ladies` and `lady` are the same."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word[-1] != "s" or word[-2] in "su":  # glass, bus
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1]


_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "leaves": "leaf", "knives": "knife", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "calves": "calf", "scarves": "scarf", "halves": "half", "oxen": "ox", "policemen": "policeman",
    "firemen": "fireman", "fishermen": "fisherman", "potatoes": "potato", "tomatoes": "tomato", "species": "species",
    "series": "series", "cookies": "cookie", "movies": "movie", "pies": "pie", "ties": "tie", "zombies": "zombie",
    "selfies": "selfie", "hoodies": "hoodie", "buses": "bus", "lens": "lens", "canvas": "canvas", "always": "always",
}  # fmt: skip
