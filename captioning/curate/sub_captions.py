"""Parts of long captions as captions of their own: a few sentences of it, consecutive or picked.

A text tower sees what fits its context, and a long caption always begins the same way; its parts say less at a time
and differ more. FLAIR (Xiao et al., 2025) merges 1 to 3 sentences, half of the time consecutive ones, half of the time
any (PAPER 5, design idea 1). Which parts a caption gives depends on nothing but its caption_id and its text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from captioning.curate.config import SubCaptionsConfig
from captioning.curate.words import words

MIN_WORDS = 3  # "It is." says nothing alone
TRIES = 8  # draws until a part is a new one
_CLOSING = "\"'”’»)\\]」』"
_CJK_END = "。！？"
_BOUNDARY = re.compile(
    rf"(?:[.!?…]+[{_CLOSING}]*\s+(?=[\"'“‘«(\[¡¿]*[^\W_a-z])|[{_CJK_END}]+[{_CLOSING}]*(?![{_CLOSING}と])\s*)"
)
# A full stop after these does not end a sentence; nor does one after a single capital (J. Smith).
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“])(?:[A-Z]|[Mm]rs?|[Mm]s|[Dd]r|[Ss]t|[Pp]rof|[Ss]en|[Gg]en|[Cc]apt|[Ll]t|[Mm]t|[Nn]o|[Ff]ig|[Vv]s"
    r"|[Aa]pprox|[Cc]a|e\.g|i\.e|cf)\.$"
)
_PAIRS = (("“", "”"), ("(", ")"), ("「", "」"), ("«", "»"))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text. Abbreviations, decimals, and what stands in quotes or brackets do not end one."""
    text = text.strip()
    keeps_pairs = _balanced(text)
    sentences, start = [], 0
    for boundary in _BOUNDARY.finditer(text):
        sentence = text[start : boundary.end()].rstrip()
        if _ABBREVIATION.search(sentence) or (keeps_pairs and not _balanced(sentence)):
            continue
        sentences.append(sentence)
        start = boundary.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def sub_captions(text: str, caption_id: str, config: SubCaptionsConfig) -> list[str]:
    """Up to `per_caption` different parts of 1 to `max_sentences` sentences, never all of it; none of a single one."""
    sentences = split_sentences(text)
    if len(sentences) < 2:
        return []
    draw = random.Random(caption_id)
    longest = min(config.max_sentences, len(sentences) - 1)
    found: dict[tuple[str, ...], str] = {}
    for turn in range(config.per_caption):
        for _ in range(TRIES):
            chosen = (
                _consecutive(draw, len(sentences), longest) if turn % 2 == 0 else _any(draw, len(sentences), longest)
            )
            part = _join([sentences[place] for place in chosen])
            said = words(part)
            if len(said) >= MIN_WORDS and said not in found:
                found[said] = part
                break
    return list(found.values())


def granularity_of(text: str) -> str:
    """What a part is: a sentence, or several."""
    return "sentence" if len(split_sentences(text)) == 1 else "paragraph"


def _consecutive(draw: random.Random, sentences: int, longest: int) -> Sequence[int]:
    length = draw.randint(1, longest)
    start = draw.randint(0, sentences - length)
    return range(start, start + length)


def _any(draw: random.Random, sentences: int, longest: int) -> Sequence[int]:
    return sorted(draw.sample(range(sentences), draw.randint(1, longest)))


def _join(sentences: Sequence[str]) -> str:
    joined = sentences[0]
    for sentence in sentences[1:]:
        joined += sentence if joined.rstrip(_CLOSING.replace("\\", ""))[-1:] in _CJK_END else f" {sentence}"
    return joined


def _balanced(text: str) -> bool:
    return text.count('"') % 2 == 0 and all(text.count(left) == text.count(right) for left, right in _PAIRS)
