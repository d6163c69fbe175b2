"""The list of what no caption should have, read from `unsafe.yaml` or a file of one's own."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from captioning.curate.text_rules.words import words
from pipeline.config import load_yaml
from pipeline.errors import ConfigError
from pipeline.identity import digest

BUILT_IN = Path(__file__).with_name("unsafe.yaml")
PATTERNS = "patterns"
ROT13 = "rot13"


@dataclass(frozen=True)
class UnsafeList:
    """Phrases as words, in all their forms, and all patterns as one."""

    phrases: frozenset[tuple[str, ...]]
    pattern: re.Pattern[str] | None


def list_digest(path: str | None) -> str:
    """Identity of the list, so that an edited one curates again. Raises `ConfigError` if there is no file."""
    return digest(load_yaml(path or BUILT_IN))


def load_list(path: str | None) -> UnsafeList:
    """Read a list; what is no text, no word or no pattern in it is a `ConfigError` that names it."""
    source = Path(path) if path else BUILT_IN
    phrases: set[tuple[str, ...]] = set()
    patterns: list[str] = []
    for group, entries in load_yaml(source).items():
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ConfigError(f"{source}: '{group}' must be a list of texts")
        if group == PATTERNS:
            patterns = entries
            continue
        for entry in entries:
            spoken = words(codecs.decode(entry, "rot13") if group == ROT13 else entry)
            if not spoken:
                raise ConfigError(f"{source}: '{group}' has {entry!r}, which has no word")
            phrases |= {form for last in forms(spoken[-1]) for form in _joined((*spoken[:-1], last))}
    try:
        pattern = re.compile("|".join(f"(?:{one})" for one in patterns), re.IGNORECASE) if patterns else None
    except re.error as error:
        raise ConfigError(f"{source}: 'patterns' has what is no regular expression: {error}") from error
    return UnsafeList(frozenset(phrases), pattern)


def forms(word: str) -> set[str]:
    """An English word with its plural, its possessive, and its forms as a verb; what is no word harms nobody."""
    inflected = {word, f"{word}s", f"{word}es", f"{word}'s", f"{word}’s", f"{word}ed", f"{word}ing"}
    for end, others in _ENDS.items():
        if word.endswith(end):
            inflected |= {word.removesuffix(end) + other for other in others}
    return inflected


_ENDS = {"y": ("ies", "ied"), "e": ("ed", "ing"), "man": ("men", "men's", "men’s"), "fe": ("ves",), "f": ("ves",)}


def _joined(phrase: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The phrase with spaces and with hyphens between its words."""
    return {phrase, ("-".join(phrase),), tuple(part for word in phrase for part in word.split("-"))}
