"""Marks inside a text: emphasis, links, and the marks by which tokenizers join pieces of words."""

from __future__ import annotations

import re

_LINK = re.compile(r"!?\[([^\[\]\n]{1,500})\]\((?:https?://|www\.|/|#|data:)[^()\s]{0,500}\)")
_EMPHASIS = re.compile(r"\*{1,9}|_{2,9}|~~")
_PIECE = re.compile(r"(?<=\S)\s{1,9}##(?=\w)|(?<=\w)@@\s{1,9}(?=\w)")
_BYTE_LEVEL = re.compile(r"(?<=[\w,.;:!?'\"])Ġ")  # a letter of Maltese too, where words begin with it


def joined_pieces(text: str) -> str:
    """The text without marks of word pieces."""
    if "▁" in text:
        text = text.replace("▁", " ")
    if "</w>" in text:
        text = text.replace("</w>", " ")
    text = text.rstrip("Ċ")
    if "Ġ" in text and _BYTE_LEVEL.search(text):
        text = text.replace("Ġ", " ").replace("Ċ", "\n")
    return _PIECE.sub("", text) if "##" in text or "@@" in text else text


def without_emphasis(text: str) -> str:
    """The text without pairs of marks around words; stars and lines that stand alone stay. Of links the words stay."""
    if "](" in text:
        text = _LINK.sub(r"\1", text)
    if "*" not in text and "__" not in text and "~~" not in text:
        return text
    opened: dict[str, tuple[int, int]] = {}
    gone: list[tuple[int, int]] = []
    for match in _EMPHASIS.finditer(text):
        mark, (start, stop) = match[0], match.span()
        before, after = text[start - 1 : start], text[stop : stop + 1]
        if mark in opened and before.strip() and not (len(mark) == 1 and after.isalnum()):
            gone += [opened.pop(mark), (start, stop)]
        elif mark not in opened and after.strip() and not (len(mark) == 1 and before.isalnum()):
            opened[mark] = (start, stop)
    parts, done = list[str](), 0
    for start, stop in sorted(gone):
        parts.append(text[done:start])
        done = stop
    return "".join(parts) + text[done:]
