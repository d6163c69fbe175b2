"""Gadget `language`: drop captions in another language than those expected.

A cheap check first, and for nearly all captions the last: a text whose letters are mostly of a script that no
expected language is written in is foreign; one with the usual share of an expected language's function words is not.
What is left is in doubt: noun lists, names, foreign sentences. Those of at least `min_words` words go to a library
(py3langid, a naive Bayes model over byte n-grams), and are foreign only if it gives all expected languages together
next to no probability. Lists of nouns have no function words in any language, and their words travel ("sushi",
"espresso"); the library is unsure of them and says so, which is why the probability of what is expected is asked for
and not the likeliest language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import regex
from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, names_perspectives
from captioning.curate.text_rules.words import words
from pipeline.config import Section, load_yaml
from pipeline.errors import ConfigError

KNOWN = Path(__file__).parent.parent / "text_rules" / "languages.yaml"
FUNCTION_SHARE = 0.2  # of the words; English captions have 0.35 to 0.5, the languages around it up to 0.15 by accident
FOREIGN_SHARE = 0.5  # of the letters
# Points of Hebrew and Arabic, which are written or left out as one likes, and the bar that stretches Arabic words: the
# library has hardly seen them.
_POINTS = regex.compile(r"(?V1)[[\p{Mn}&&[\p{scx=Hebrew}\p{scx=Arabic}]]\u0640]")
LANGUAGE = "language"


class LanguageConfig(Section):
    """Which languages captions are expected in."""

    expected: tuple[str, ...] = Field(
        default=("en",), description="languages that are kept, as ISO 639-1 codes; empty: all"
    )
    skip: tuple[str, ...] = names_perspectives(
        ("text",), "perspectives that are not judged, as they quote what is written in a picture"
    )
    min_words: int = Field(default=5, ge=1, description="words from which on a text is judged by more than its script")
    min_probability: float = Field(
        default=0.005, ge=0, le=1, description="lowest probability of the expected languages together that is kept"
    )


class Language(Gadget):
    """Drops captions that are in none of the expected languages. Raises `ConfigError` for a code that nobody knows."""

    name = "language"
    settings = LanguageConfig
    judges = "texts"
    origins = ("model", "alt_text")
    after = "length"
    made_from = ("language",)
    reads = ("perspective", "granularity")
    reasons: ClassVar[Mapping[str, str]] = {
        LANGUAGE: "it is in another language than those expected",
    }

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config
        known = _known()
        expected = config.expected
        if unknown := [code for code in expected if code not in known and code not in _identifier().labels]:
            raise ConfigError(
                f"'language.expected' names {unknown}; expected codes such as 'en', 'de' or 'zh', of those that "
                f"py3langid tells apart: {', '.join(sorted(_identifier().labels))}"
            )
        scripts = [known.get(code, {}).get("scripts", "") for code in expected]
        # None: a language whose script is not listed may be written in any
        self._foreign = _foreign_to(" ".join(scripts).split()) if scripts and all(scripts) else None
        self._ascii = self._foreign is None or self._foreign.match("a") is None
        self._function_words = [
            frozenset(spoken.split()) for code in expected if (spoken := known.get(code, {}).get("words"))
        ]

    def apply(self, draft: Draft) -> None:
        """Judge every open row, but those of perspectives that quote what is written in the picture."""
        if not self.config.expected:
            return
        perspective, granularity = draft.columns["perspective"], draft.columns["granularity"]
        for row in draft.open_rows():
            if perspective[row] in self.config.skip:
                continue
            if self.is_foreign(draft.texts[row], draft.words(row), is_list=granularity[row] == "word"):
                draft.drop(row, self, LANGUAGE)

    def is_foreign(self, text: str, tokens: Sequence[str], *, is_list: bool = False) -> bool:
        """Whether the text is in another language. A list is told by its script alone."""
        if not (text.isascii() and self._ascii) and self._is_other_script(text):
            return True
        if not text.isascii() and _POINTS.search(text):
            text = _POINTS.sub("", text)
            tokens = words(text)
        if is_list or len(tokens) < self.config.min_words:
            return False
        enough = FUNCTION_SHARE * len(tokens)
        if any(sum(map(known.__contains__, tokens)) >= enough for known in self._function_words):
            return False
        return self._expected_probability(text) < self.config.min_probability

    def _is_other_script(self, text: str) -> bool:
        if self._foreign is None:
            return False
        foreign = len(self._foreign.findall(text))
        return foreign > 0 and foreign > FOREIGN_SHARE * sum(map(str.isalpha, text))

    def _expected_probability(self, text: str) -> float:
        probability = dict(_identifier().rank(text))
        return float(sum(probability.get(code, 0.0) for code in self.config.expected))


def _foreign_to(scripts: Sequence[str]) -> regex.Pattern[str]:
    """A letter of none of these scripts (Unicode's names)."""
    own = "".join(rf"\p{{scx={name}}}" for name in dict.fromkeys(scripts))
    return regex.compile(rf"(?V1)[\p{{L}}--[{own}]]")


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    return load_yaml(KNOWN)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The library's model: half a second to load, 5 MB, inside the package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


GADGET = Language
