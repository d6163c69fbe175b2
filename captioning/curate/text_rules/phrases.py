"""The stock phrases of captioning models, read from `phrases.yaml`.

They are data, because what models say beside the caption changes with every model, and people caption in other
languages than English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from captioning.curate.text_rules.talk.vocabulary import TalkWords
from pipeline.config import load_yaml
from pipeline.errors import ConfigError
from pipeline.identity import digest

BUILT_IN = Path(__file__).with_name("phrases.yaml")
KEYS = {"parts", "openers", "learn", "refusals", "meta", "markup", "talk", "dangling", "hanging"}
# What comes after an opener must stand by itself: 'The image shows that …' does not.
_ESCAPED = re.compile(r"\\.")
_AFTER_OPENER = r"(?:[\s:,]+)(?!that\b|how\b|what\b)(?=\S)"


@dataclass(frozen=True)
class LearnWords:
    """Words that decide which openings of captions may be learnt (`corpus/openers.py`)."""

    picture: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    follows: frozenset[str] = frozenset()
    never_last: frozenset[str] = frozenset()
    phrasal: frozenset[str] = frozenset()
    watchers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Search:
    """A pattern that may occur anywhere in a text, and the words or marks one of which every such text has.

    Searching all of a text is the dearest thing there is, and most texts have none of them. Without any: always.
    """

    pattern: re.Pattern[str]
    words: frozenset[str] = frozenset()
    marks: tuple[str, ...] = ()

    def found_in(self, text: str, tokens: Iterable[str]) -> bool:
        """Whether the text has it; `tokens` are the text's words in lower case."""
        needs = self.words or self.marks
        if needs and self.words.isdisjoint(tokens) and not any(mark in text for mark in self.marks):
            return False
        return self.pattern.search(text) is not None


@dataclass(frozen=True)
class Phrases:
    """Compiled patterns. `dangling` are lower-case words that end no caption, `hanging` those that seldom do."""

    openers: tuple[str, ...]
    learn: LearnWords
    refusal: re.Pattern[str]
    meta: tuple[Search, ...]
    markup: tuple[Search, ...]
    talk: TalkWords
    dangling: frozenset[str]
    hanging: frozenset[str]

    def opener(self, learnt: Iterable[str] = ()) -> re.Pattern[str]:
        """What matches any opener that is listed or learnt, with the space after it, in a text in lower case."""
        spoken = [r"[,:]?\s+".join(map(re.escape, opener.split())) for opener in learnt]
        patterns = [*sorted(spoken, key=len, reverse=True), *self.openers]
        shouts = any(map(str.isupper, _ESCAPED.sub("", "".join(patterns))))
        flags = re.IGNORECASE if shouts else re.NOFLAG  # without is three times as fast
        return _either(patterns, after=_AFTER_OPENER, flags=flags)


def phrases_digest(path: str | None) -> str:
    """Identity of the phrases, so that an edited list curates again. Raises `ConfigError` if there is no file."""
    return digest(load_yaml(path or BUILT_IN))


def load_phrases(path: str | None) -> Phrases:
    """Read and compile a file of phrases; a wrong key or pattern is a `ConfigError` that names it."""
    source = Path(path) if path else BUILT_IN
    data = load_yaml(source)
    if unknown := set(data) - KEYS:
        raise ConfigError(f"{source} has the unknown keys {sorted(unknown)}; known are {sorted(KEYS)}")
    return Phrases(
        openers=_patterns(source, data, "openers"),
        learn=LearnWords(**_word_sets(source, data, "learn", LearnWords)),
        refusal=_either(_patterns(source, data, "refusals")),
        meta=_searches(source, data, "meta"),
        markup=_searches(source, data, "markup"),
        talk=TalkWords(**_word_sets(source, data, "talk", TalkWords)),
        dangling=_word_set(source, data, "dangling"),
        hanging=_word_set(source, data, "hanging"),
    )


def _word_sets(source: Path, data: dict[str, Any], key: str, what: type) -> dict[str, frozenset[str]]:
    """The sets of words under a key, by the fields of the class they are for."""
    known, lists = {field.name for field in fields(what)}, data.get(key, {})
    if not isinstance(lists, dict) or set(lists) - known:
        raise ConfigError(f"{source}: '{key}' must be a mapping with keys of {sorted(known)}")
    return {name: _word_set(source, lists, name) for name in lists}


def _word_set(source: Path, data: dict[str, Any], key: str) -> frozenset[str]:
    spoken = data.get(key, "")
    if not isinstance(spoken, str):
        raise ConfigError(f"{source}: '{key}' must be one text of words with spaces between them")
    return frozenset(spoken.lower().split())


def _patterns(source: Path, data: dict[str, Any], key: str) -> tuple[str, ...]:
    phrases = data.get(key, [])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise ConfigError(f"{source}: '{key}' must be a list of regular expressions")
    return tuple(_checked(source, data, key, phrase) for phrase in phrases)


def _searches(source: Path, data: dict[str, Any], key: str) -> tuple[Search, ...]:
    phrases = data.get(key, [])
    if not isinstance(phrases, list):
        raise ConfigError(f"{source}: '{key}' must be a list")
    searches = []
    for phrase in phrases:
        entry = {"says": phrase} if isinstance(phrase, str) else phrase
        if not isinstance(entry, dict) or set(entry) - {"needs", "says"} or not isinstance(entry.get("says"), str):
            raise ConfigError(
                f"{source}: '{key}' has {phrase!r}; it must be a regular expression, or a mapping with the regular "
                "expression under 'says' and the words, one of which it needs, under 'needs'"
            )
        pattern = _checked(source, data, key, entry["says"])
        needs = str(entry.get("needs", "")).lower().split()
        marks = tuple(need for need in needs if not any(map(str.isalnum, need)))
        searches.append(Search(_either([pattern]), frozenset(needs) - set(marks), marks))
    return tuple(searches)


def _checked(source: Path, data: dict[str, Any], key: str, phrase: str) -> str:
    for name, part in reversed(data.get("parts", {}).items()):  # a part may use those before it
        phrase = phrase.replace(f"{{{name}}}", part)
    try:
        re.compile(phrase)
    except re.error as error:
        raise ConfigError(f"{source}: '{key}' has {phrase!r}, which is no regular expression: {error}") from error
    return phrase


def _either(patterns: Iterable[str], *, after: str = "", flags: re.RegexFlag = re.IGNORECASE) -> re.Pattern[str]:
    """One pattern that matches any of them; without any it matches nothing."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(f"(?:{joined}){after}" if joined else r"(?!)", flags)
