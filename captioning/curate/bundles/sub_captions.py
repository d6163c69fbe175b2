"""Parts of long captions as captions of their own: a few sentences of it, consecutive or picked.

A text tower sees what fits its context, and a long caption always begins the same way; its parts say less at a time
and differ more. FLAIR (Xiao et al., 2025) merges 1 to 3 sentences, half of the time consecutive ones, half of the time
any (PAPER 5, design idea 1). Which parts a caption gives depends on nothing but its caption_id and its text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from operator import add

import regex

from captioning.curate.config import SubCaptionsConfig
from captioning.curate.text_rules.words import OTHER_STOP, words

MIN_WORDS = 3  # "It is." says nothing alone
TRIES = 8  # draws until a part is a new one
_CLOSING = "\"'”’»)\\]」』"
_CJK_END = "。！？"  # no space stands behind them
_BOUNDARY = regex.compile(
    rf"(?V1)(?<![.!?…])[.!?…]+[{_CLOSING}]*\s+(?=[\"'“‘«(\[¡¿]*[[\w]--[_a-z]])"
    rf"|(?<!{OTHER_STOP}){OTHER_STOP}+[{_CLOSING}]*(?![{_CLOSING}と])\s*"
)
# A full stop after these does not end a sentence; nor does one after a single capital (J. Smith).
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“])(?:[A-Z]|[Mm]rs?|[Mm]s|[Dd]r|[Ss]t|[Pp]rof|[Ss]en|[Gg]en|[Cc]apt|[Ll]t|[Mm]t|[Nn]o|[Ff]ig|[Vv]s"
    r"|[Aa]pprox|[Cc]a|e\.g|i\.e|cf)\.$"
)
_LOOK_BACK = 16  # characters, more than any abbreviation
_PAIRS = (("“", "”"), ("(", ")"), ("「", "」"), ("«", "»"))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text. Abbreviations, decimals, and what stands in quotes or brackets do not end one."""
    text = text.strip()
    keeps_pairs = _balanced(_pairs(text))
    sentences, start, seen = list[str](), 0, 0
    open_pairs = _pairs("")  # from `start` to `seen`
    for boundary in _BOUNDARY.finditer(text):
        more = _pairs(text[seen : boundary.end()])
        open_pairs, seen = tuple(map(add, open_pairs, more)), boundary.end()
        last_words = text[max(start, boundary.start() - _LOOK_BACK) : seen].rstrip()
        if _ABBREVIATION.search(last_words) or (keeps_pairs and not _balanced(open_pairs)):
            continue
        sentences.append(text[start:seen].rstrip())
        start, open_pairs = seen, _pairs("")
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def sub_captions(text: str, caption_id: str, config: SubCaptionsConfig) -> list[str]:
    """Up to `per_caption` different parts of 1 to `max_sentences` sentences, never all of it; none of a single one."""
    sentences = split_sentences(text)
    if len(sentences) < 2:
        return []
    draw = random.Random(caption_id)
    longest = min(config.max_sentences, len(sentences) - 1)
    parts: dict[tuple[str, ...], str] = {}
    for turn in range(config.per_caption):
        for _ in range(TRIES):
            chosen = (
                _consecutive(draw, len(sentences), longest) if turn % 2 == 0 else _any(draw, len(sentences), longest)
            )
            part = _join([sentences[place] for place in chosen])
            said = words(part)
            if len(said) >= MIN_WORDS and said not in parts:
                parts[said] = part
                break
    return list(parts.values())


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


def _pairs(text: str) -> tuple[int, ...]:
    """How many quotation marks there are, and of each pair how many more open than close."""
    return (text.count('"'), *(text.count(left) - text.count(right) for left, right in _PAIRS))


def _balanced(pairs: tuple[int, ...]) -> bool:
    return pairs[0] % 2 == 0 and not any(pairs[1:])
