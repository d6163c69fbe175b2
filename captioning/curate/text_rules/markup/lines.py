"""Lines of an answer: headings go, bullets and numbers too, and a list of words becomes one with commas."""

from __future__ import annotations

import re
from collections.abc import Sequence

from captioning.curate.text_rules.words import is_ended

LIST = "word"
_GLYPHS = "•‣◦▪●·○■□▶➤✓✔"
_BULLET = re.compile(
    rf"(?:[-*+–—>]{{1,3}}\s+|[{_GLYPHS}]\s*|\(?\d{{1,3}}(?:[.)](?:\s+|$)|[、．])|\(?[a-zA-Z]\)\s+|[①-⑳]\s*)"
    r"(?:\[[ xX]?\]\s*)?"
)
_HEADING = re.compile(r"#{1,6}\s+(.*)")
_LABEL = re.compile(
    r"\W*(?:(?:the|a|an|your|my|final|short|brief|detailed|image|photo|picture|alt|noun|object|generated)[ _-]){0,4}"
    r"(?:caption|description|answer|response|output|text|summary|title|result|noun|object|keyword|tag|list|item|word)s?\W*",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"(?:^|(?<=\s))\(?(\d{1,3})[.)]\s+")
_SCORE = re.compile(r"\s*[:=–-]?\s*\(?(?:[01]?\.\d{1,12}|\d{1,3}(?:\.\d{1,3})?\s?%)\)?$")
_AROUND_ITEM = " \t,;.\"'“”‘’`"
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


def without_bullets(text: str, granularity: str) -> str:
    """The text on one line, as it is if it was on one and has no bullets."""
    lines = [line for line in map(str.strip, text.split("\n")) if any(map(str.isalnum, line))]
    if len(lines) > 1:
        lines = _without_headings(lines)
    if granularity == LIST:
        return _as_list(text, lines)
    if len(lines) == 1:
        lines = _numbered(lines[0]) or lines
    bare = [_BULLET.sub("", line, count=1) if _BULLET.match(line) else line for line in lines]
    if len(lines) == 1 or bare == lines:
        return text if len(lines) == 1 and lines[0] == text.strip() else "\n".join(bare if len(lines) == 1 else lines)
    return _joined(lines, bare)


def _without_headings(lines: Sequence[str]) -> list[str]:
    """The lines without headings and labels, if anything is left then."""
    left = [line for line in lines if not _HEADING.match(line) and not (len(line) < 60 and _LABEL.fullmatch(line))]
    return left or [_HEADING.sub(r"\1", line) for line in lines]


def _joined(lines: Sequence[str], bare: Sequence[str]) -> str:
    """Sentences behind each other; items of a list get what is missing between them."""
    parts = [bare[0]]
    for line, words in zip(lines[1:], bare[1:], strict=True):
        last = parts[-1]
        if line == words or is_ended(last) or last.endswith((":", ",", ";")):
            parts.append(" ")
        elif words[:1].islower() or len(words.split()) < 3:
            parts.append(", ")
        else:
            parts.append(". ")
        parts.append(words)
    return "".join(parts)


def _as_list(text: str, lines: Sequence[str]) -> str:
    """Items with commas between them, where they were lines, bullets, cells or tags; a list with commas stays."""
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    items = list[str]()
    for line in lines:
        head, _, rest = line.partition(":")
        listed = rest.strip() if rest.strip() and _LABEL.fullmatch(head) else line
        items += _items_of(_without_brackets(listed))
    if len(lines) == 1 and len(items) == 1:
        return items[0] if items[0] != lines[0] else text.strip()
    told = [item for item in (_SCORE.sub("", item).strip(_AROUND_ITEM) for item in items) if item]
    return ", ".join(told)


def _items_of(line: str) -> list[str]:
    if numbered := _numbered(line):
        return [_BULLET.sub("", item, count=1) for item in numbered]
    if line.startswith("#") and line[1:2].isalnum():
        return line.replace("#", " ").split()
    bullet = _BULLET.match(line)
    if bullet:
        line = line[bullet.end() :]
    for mark in (*_GLYPHS, "|", f" {bullet[0].strip()} " if bullet and bullet[0][0] in "-*+–—" else "|"):
        if mark in line:
            return [item for item in map(str.strip, line.split(mark)) if item]
    cells = [item.strip() for item in line.split(",")]
    return cells if all(map(_SCORE.search, cells)) else [line]  # "dog: 0.98, ball: 0.87"


def _numbered(line: str) -> list[str]:
    """The items of a list on one line that is numbered from 1 on, two at least, each with its number."""
    starts, following = list[int](), 1
    for match in _NUMBERS.finditer(line):
        if int(match[1]) == following:
            starts.append(match.start())
            following += 1
    if len(starts) < 2 or starts[0] > 0:
        return []
    return [line[start:stop].strip() for start, stop in zip(starts, [*starts[1:], len(line)], strict=True)]


def _without_brackets(line: str) -> str:
    inside = line[1:-1]
    return inside if _BRACKETS.get(line[:1]) == line[-1:] and not any(mark in inside for mark in "[]{}()") else line
