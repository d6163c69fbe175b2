"""The head noun of what a caption tells of: "A young woman in a red dress." tells of a woman.

Plain English and no tagger: a noun phrase ends before a preposition, a verb or a comma, and its last word is the head.
Captions of a main object are that plain; where nothing is found, nothing is said.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from captioning.curate.text_rules.words import singular
from pipeline.config import load_yaml

# "The main object in this image is", "The focus of the photo is", "The most striking thing is"
_LEAD = re.compile(
    r"^(?:[a-z'’,-]+ ){0,8}?(?:object|subject|thing|focus|element|item|focal point|feature|figure)s?(?: here)?"
    r"(?: (?:of|in) (?:the|this) \w+)?(?: that \w+ \w+)?(?: is| are| appears to be| seems to be|:)\s",
    re.IGNORECASE,
)
_PUNCTUATION = re.compile(r"[.;:!?,()]")
_ADJECTIVE_ENDS = ("y", "ed", "ful", "ous", "ive", "ish", "al", "ic", "less", "ant", "ent")
_MARKS = "\"'“”‘’*"


def head_nouns(text: str) -> list[str]:
    """The head nouns, in lower case and in the number they have: one, none, or a container and what is in it."""
    data = _lists()
    heads: list[str] = []
    phrase: list[str] = []
    for word in _PUNCTUATION.sub(" , ", _LEAD.sub("", text, count=1).lower()).split():
        if word == "of" and phrase and phrase[-1] in data["containers"]:
            heads.append(phrase[-1])
            phrase = []
        elif word == "of" and phrase and phrase[-1] in data["measures"]:
            phrase = []
        elif word in (",", "and"):  # "a small, red boat", "a red and white boat"
            if not (phrase and _may_be_adjective(phrase[-1])):
                break
        elif phrase and _ends_phrase(word):
            break
        elif word not in data["articles"] and word not in data["breaks"]:
            phrase.append(word)
    heads += phrase[-1:]
    bare = [head.strip(_MARKS).removesuffix("'s").removesuffix("’s") for head in heads]
    return [head for head in bare if head.isalpha() and len(head) > 2 and singular(head) not in data["no_things"]]


def _ends_phrase(word: str) -> bool:
    data = _lists()
    is_verb = word.endswith("ing") and word not in data["ing_things"]
    return is_verb or word in data["breaks"] or word in data["articles"]


def _may_be_adjective(word: str) -> bool:
    return word in _lists()["adjectives"] or word.endswith(_ADJECTIVE_ENDS)


@lru_cache(maxsize=1)
def _lists() -> dict[str, frozenset[str]]:
    data = load_yaml(Path(__file__).with_suffix(".yaml"))
    return {name: frozenset(spoken.split()) for name, spoken in data.items()}
