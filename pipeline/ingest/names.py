"""Names of files: what they end in, and which are no part of a data set."""

from __future__ import annotations

import re

HIDDEN = "hidden files, or files of operating systems"
_WORD = re.compile(r"\.[a-z]\w{0,9}\Z")
_SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")


def suffix_of(name: str) -> str:
    """What a name ends in, from its last dot on, in small letters; empty if there is none."""
    base = name.rpartition("/")[2]
    return f".{base.rpartition('.')[2].lower()}" if "." in base else ""


def stem_of(name: str) -> str:
    """A name up to its last dot."""
    return name[: len(name) - len(suffix_of(name))]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system leaves behind."""
    return name.startswith(".") or name.lower() in _SYSTEM


def of_suffix(suffix: str) -> str:
    """The reason why a file is not used, if nothing but its suffix is known."""
    return f"files that end in {suffix}" if _WORD.match(suffix) else "files without a usual suffix"
