"""The stock phrases of captioning models, read from `phrases.yaml`.

They are data, because what models say beside the caption changes with every model, and people caption in other
languages than English.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import load_yaml
from pipeline.errors import ConfigError
from pipeline.identity import digest

BUILT_IN = Path(__file__).with_name("phrases.yaml")
KEYS = {"parts", "openers", "refusals", "meta", "dangling"}


@dataclass(frozen=True)
class Phrases:
    """Compiled patterns; `dangling` are lower-case words that end no sentence."""

    opener: re.Pattern[str]
    refusal: re.Pattern[str]
    meta: re.Pattern[str]
    dangling: frozenset[str]


def phrases_digest(path: str | None) -> str:
    """Identity of the phrases, so that an edited list curates again. Raises `ConfigError` if there is no file."""
    return digest(load_yaml(path or BUILT_IN))


def load_phrases(path: str | None) -> Phrases:
    """Read and compile a file of phrases; a wrong key or pattern is a `ConfigError` that names it."""
    source = Path(path) if path else BUILT_IN
    data = load_yaml(source)
    if unknown := set(data) - KEYS:
        raise ConfigError(f"{source} has the unknown keys {sorted(unknown)}; known are {sorted(KEYS)}")
    if not isinstance(data.get("dangling", ""), str):
        raise ConfigError(f"{source}: 'dangling' must be one text of words with spaces between them")
    # What comes after an opener must stand by itself: 'The image shows that …' does not.
    opener = _either(source, data, "openers", after=r"(?:[\s:,]+)(?!that\b|how\b|what\b)(?=\S)")
    refusal = _either(source, data, "refusals", after="")
    meta = _either(source, data, "meta", after="")
    return Phrases(opener, refusal, meta, frozenset(data.get("dangling", "").lower().split()))


def _either(source: Path, data: dict[str, Any], key: str, *, after: str) -> re.Pattern[str]:
    """One pattern that matches any of the phrases under `key`; without phrases it matches nothing."""
    phrases = data.get(key, [])
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise ConfigError(f"{source}: '{key}' must be a list of regular expressions")
    patterns = []
    for phrase in phrases:
        for name, part in data.get("parts", {}).items():
            phrase = phrase.replace(f"{{{name}}}", part)
        try:
            re.compile(phrase)
        except re.error as error:
            raise ConfigError(f"{source}: '{key}' has {phrase!r}, which is no regular expression: {error}") from error
        patterns.append(f"(?:{phrase})")
    return re.compile(f"(?:{'|'.join(patterns)}){after}" if patterns else r"(?!)", re.IGNORECASE)
