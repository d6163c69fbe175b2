"""Code around a caption: fences, LaTeX boxes, JSON (or what Python prints) with a text in it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from captioning.curate.text_rules.markup.lines import LIST

_FENCE = "```"
_LANGUAGE = re.compile(
    r"(?:json[5l]?|te?xt|plain(?:text)?|markdown|md|html|xml|ya?ml|python|latex|tex)[ \t]{0,9}(?:\n|$|(?=[{\[]))",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm|tt|sf|sc)?|math(?:bf|rm|it|tt|sf)|emph|caption)\s{0,9}\{|[{}]")
_MATHS = re.compile(r"\s*(?:\$\$?|\\\(|\\\[)(.*?)(?:\$\$?|\\\)|\\\])\s*", re.DOTALL)
_ESCAPE = re.compile(r"\\([nr](?![a-z])|[\"'])")  # that were never read back
_CUT = re.compile(r"\s*\{\s*[\"'](\w{1,40})[\"']\s*:\s*\"((?:[^\"\\]|\\.)*+)\"?[\s,}]*", re.DOTALL)
_OPENS = re.compile(r"[{\[]\s*[{\[\"'\]}]")
_KEYS = (
    "caption", "description", "answer", "text", "alt_text", "alt", "sentence", "summary", "response", "output",
    "content", "result", "final_answer", "image_caption", "image_description", "detailed_caption", "short_caption",
)  # fmt: skip
_DEEPEST = 50  # brackets in brackets; no model nests its answer so
_LONGEST_LITERAL = 20_000  # characters


def without_code(text: str, granularity: str) -> str:
    """The text without fences, commands and JSON; where JSON has several texts, it stays as it is."""
    if _FENCE in text:
        text = _without_fences(text)
    if "\\" in text:
        text = _without_latex(text) if "{" in text or "$" in text else text
    if "{" in text or "[" in text or text[:1] == '"':
        text = _without_json(text, granularity)
    return _ESCAPE.sub(lambda match: "\n" if match[1] in "nr" else match[1], text) if "\\" in text else text


def _without_fences(text: str) -> str:
    parts = text.split(_FENCE)
    parts[1::2] = [_LANGUAGE.sub("", part, count=1) if _LANGUAGE.match(part) else part for part in parts[1::2]]
    before = parts[0].strip()
    if len(parts) <= 3 and (not before or before.endswith(":")):  # "Here is the caption:", and what is said after it
        return parts[1]
    return "\n".join(parts)


def _without_latex(text: str) -> str:
    """The content of the last box, and of commands that say how letters look."""
    braces = list[tuple[int, int, bool]]()  # open ones: where they begin and end, and whether a command does
    gone = list[tuple[int, int]]()
    box: tuple[int, int] | None = None
    for match in _COMMAND.finditer(text):
        if match[0] != "}":
            braces.append((*match.span(), len(match[0]) > 1))
        elif braces:
            start, stop, is_command = braces.pop()
            if is_command:
                gone += [(start, stop), match.span()]
            if text.startswith(("\\boxed", "\\fbox"), start):
                box = (stop, match.start())
    if box:
        return _cut(text, [span for span in gone if box[0] <= span[0] < box[1]], *box)
    bare = _cut(text, gone, 0, len(text))
    return maths[1] if (maths := _MATHS.fullmatch(bare)) else bare


def _cut(text: str, gone: list[tuple[int, int]], start: int, stop: int) -> str:
    parts = []
    for first, last in sorted(gone):
        parts.append(text[start:first])
        start = last
    return "".join([*parts, text[start:stop]])


def _without_json(text: str, granularity: str) -> str:
    """Of JSON the text in it, if it has one, or its list; what is said before it must end in a colon."""
    opening = _OPENS.search(text)
    start = opening.start() if opening else 0
    before = text[:start].strip()
    if before and not before.endswith(":"):
        return text
    value = _parsed(text[start:].strip())
    if value is None:
        cut = _CUT.fullmatch(text, start)
        return _unescaped(cut[2]) if cut and (cut[1] in _KEYS or granularity != LIST) else text
    said = _said(value, granularity)
    return text if said is None else said


def _parsed(text: str) -> Any:
    """What JSON, or a literal of Python, at the start of a text means; None if there is none, or it is too deep."""
    if text.count("{") + text.count("[") > _DEEPEST and _depth(text) > _DEEPEST:
        return None
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text)
        if isinstance(value, str) and end < len(text):  # "Stop" and "Go" are written on two signs.
            return None
    except (ValueError, RecursionError):
        if len(text) > _LONGEST_LITERAL or text[:1] not in "{[":
            return None
        try:
            value = ast.literal_eval(text[: max(text.rfind("}"), text.rfind("]")) + 1])
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    for mark in re.finditer(r"[{}\[\]]", text):
        depth += 1 if mark[0] in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _said(value: Any, granularity: str) -> str | None:
    """The text that is meant, if one is: the only one, the one under a known key, a list."""
    leaves = [(key, text) for key, text in _leaves(value) if text.strip()]
    texts = [text for _, text in leaves]
    if granularity == LIST:
        if isinstance(value, dict) and not leaves and len(value) > 1:  # {"dog": 0.98, "ball": 0.9}
            texts = [str(key) for key in value]
        return "\n".join(dict.fromkeys(texts)) or None
    if len(texts) == 1:
        return texts[0]
    known = [text for key, text in leaves if key in _KEYS]
    if len(known) == 1:
        return known[0]
    one_list = isinstance(value, list) or (isinstance(value, dict) and len(value) == 1)
    return "\n".join(f"- {text}" for text in texts) if texts and one_list else None


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts, each with the key that it or its list stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, str(name).lower().replace(" ", "_"))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner, key)


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:  # cut in the middle of an escape
        return text.rstrip("\\")
