"""The caption inside a model's answer: markup off, step by step from the outside in.

Each step is one scan of the text, so the time is linear in its length whatever is in it. What no step knows stays, and
gadget `reject` drops it as `markup`.
"""

from __future__ import annotations

import html
import re

from captioning.curate.text_rules.markup.boxes import without_boxes
from captioning.curate.text_rules.markup.chat import answer_of
from captioning.curate.text_rules.markup.code import without_code
from captioning.curate.text_rules.markup.lines import LIST, without_bullets
from captioning.curate.text_rules.markup.marks import joined_pieces, without_emphasis
from captioning.curate.text_rules.markup.tags import without_tags

_TELLING = re.compile(r"[<{\[(`\\▁◁ĠĊ&\n\r|#@*_•‣◦▪●·~]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_LINE_ENDS = re.compile(r"\r\n?|\u2028|\u2029|\n{3,}")
_BLANK = re.compile(r"[^\S\n]+")
_SPACE_BEFORE = re.compile(r"(?<=\S)[^\S\n]{1,99}(?=[,.;:!?](?:\s|$))")


def may_wrap(text: str) -> bool:
    """Whether there may be markup in a text; nearly all captions have none."""
    return not text[:1].isalpha() or text[-1:].isdigit() or _TELLING.search(text) is not None


def bare(text: str, granularity: str) -> str:
    """The text without markup, which nearly all captions are."""
    return unwrap(text, granularity) if may_wrap(text) or (granularity == LIST and ":" in text) else text


def unwrap(text: str, granularity: str) -> str:
    """The text without markup. A list of words stays a list, with commas."""
    text = left = _BLANK.sub(" ", _LINE_ENDS.sub("\n", text))
    if "&" in left:
        left = _ENTITY.sub(lambda match: html.unescape(match[0]), left)
    left = without_tags(answer_of(left))
    left = without_code(left, granularity)
    left = without_boxes(joined_pieces(left))
    left = without_emphasis(left)
    if left != text:
        left = _SPACE_BEFORE.sub("", left)
    return without_bullets(left, granularity)
