"""Boxes and scores of detectors: numbers in brackets that nobody would write in a caption."""

from __future__ import annotations

import re

_NUMBER = r"[-+]?(?:\d{1,5}(?:\.\d{1,12})?|\.\d{1,12})%?"
_LIST = rf"\s{{0,9}}{_NUMBER}(?:\s{{0,9}}[,;]\s{{0,9}}{_NUMBER}){{1,15}}\s{{0,9}}"
_SHARE = r"(?:0?\.\d{1,12}|1\.0{1,12})"
_BOXES = re.compile(
    r"(?:\b(?:bbox(?:_2d)?|(?:bounding )?box|coordinates?)\s{0,9}[:=]?\s{0,9})?(?:"
    rf"(?:\[{{1,3}}{_LIST}(?:\]{{1,3}}(?:,\s{{0,9}}\[{_LIST}){{0,99}}\]{{1,3}}|\]{{1,3}}))"  # [1, 2, 3, 4], [[…], […]]
    rf"|\({_LIST}\)(?:\s{{0,9}},\s{{0,9}}\({_LIST}\)){{1,99}}"  # (1,2),(3,4)
    rf"|\((?:\s{{0,9}}{_NUMBER}\s{{0,9}},){{3}}\s{{0,9}}{_NUMBER}\s{{0,9}}\)"  # (1, 2, 3, 4)
    rf"|[(\[]\s{{0,9}}{_SHARE}(?:\s{{0,9}},\s{{0,9}}{_SHARE}){{0,15}}\s{{0,9}}[)\]]"  # (0.85)
    rf"|[(\[]\s{{0,9}}(?:confidence|conf\.?|score|prob(?:ability|\.)?|p)\s{{0,9}}[:=]?\s{{0,9}}{_NUMBER}\s{{0,9}}[)\]]"
    rf"|\{{{_LIST}\}}|\{{\s{{0,9}}\}})",  # what other models write between braces are tokens, and gone by now
    re.IGNORECASE,
)


_BEFORE = re.compile(r"\s{0,9}(?:0?\.\d{2,12}|1\.0{1,12})\s{0,9}[:;,|-]?\s{1,9}(?=[A-Z])")  # 0.93 A cat sleeps.
_BEHIND = re.compile(r"(?<=[.!?])\s{0,9}[:;,|-]?\s{0,9}(?:0\.\d{2,12}|1\.0{1,12})\s{0,9}\Z")  # A cat sleeps. 0.93
_TAIL = 40  # characters, more than any score


def without_boxes(text: str) -> str:
    """The text without boxes and scores. "(3, 4)" and "[1]" may be anything and stay."""
    if "(" in text or "[" in text or "{" in text:
        text = _BOXES.sub(" ", text)
    if score := _BEFORE.match(text):
        text = text[score.end() :]
    if score := _BEHIND.search(text, max(0, len(text) - _TAIL)):
        text = text[: score.start()]
    return text
