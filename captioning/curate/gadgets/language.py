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

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from captioning.curate.config import LanguageConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason
from pipeline.config import load_yaml
from pipeline.errors import ConfigError

KNOWN = Path(__file__).parent.parent / "languages.yaml"
SCRIPTS = {
    "latin": "A-Za-zªºÀ-ÖØ-öø-ʯ\u1e00-\u1eff\ufb00-\ufb06",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "cyrillic": "\u0400-\u052f",
    "hebrew": "\u0590-\u05ff",
    "arabic": "\u0600-\u06ff\u0750-\u077f",
    "devanagari": "\u0900-\u097f",
    "thai": "\u0e00-\u0e7f",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3040-\u30ff",
    "han": "\u3400-\u9fff\uf900-\ufaff",
}
FUNCTION_SHARE = 0.2  # of the words; English captions have 0.35 to 0.5, the languages around it up to 0.15 by accident
SCRIPT_SHARE = 0.5  # of the letters


class Language:
    """Drops captions that are in none of the expected languages. Raises `ConfigError` for a code that nobody knows."""

    name = "language"
    reads = ("perspective", "granularity")
    reasons = (Reason.LANGUAGE,)

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
        self._letters = _one_of(" ".join(scripts).split()) if scripts and all(scripts) else None
        self._ascii = self._letters is None or self._letters.match("a") is not None
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
                draft.drop(row, self, Reason.LANGUAGE)

    def is_foreign(self, text: str, tokens: Sequence[str], *, is_list: bool = False) -> bool:
        """Whether the text is in another language. A list is told by its script alone."""
        if not (text.isascii() and self._ascii) and self._is_other_script(text):
            return True
        if is_list or len(tokens) < self.config.min_words:
            return False
        enough = FUNCTION_SHARE * len(tokens)
        if any(sum(map(known.__contains__, tokens)) >= enough for known in self._function_words):
            return False
        return self._expected_probability(text) < self.config.min_probability

    def _is_other_script(self, text: str) -> bool:
        if self._letters is None:
            return False
        letters = sum(map(str.isalpha, text))
        return len(self._letters.findall(text)) < SCRIPT_SHARE * letters

    def _expected_probability(self, text: str) -> float:
        probability = dict(_identifier().rank(text))
        return float(sum(probability.get(code, 0.0) for code in self.config.expected))


def _one_of(scripts: Sequence[str]) -> re.Pattern[str]:
    return re.compile(f"[{''.join(SCRIPTS[name] for name in dict.fromkeys(scripts))}]")


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    return load_yaml(KNOWN)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The library's model: half a second to load, 5 MB, inside the package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
