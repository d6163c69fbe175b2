"""Tags and special tokens of vocabularies. Of known kinds alone: a sign may read "<EXIT>"."""

from __future__ import annotations

import re

_BAR = "[|｜]"
_WITH_CONTENT = r"box|bbox|quad|poly|polygon|det|coord|coordinates|loc|score|confidence"  # numbers, no words
_BLOCK = re.compile(
    rf"(?P<opens><!--|<(?:{_WITH_CONTENT})>|<{_BAR}(?:det|box|quad|point)(?:_start)?{_BAR}>)"
    rf"|-->|</(?:{_WITH_CONTENT})>|<{_BAR}(?:/(?:det|box|quad|point)|(?:box|quad|point)_end){_BAR}>",
    re.IGNORECASE,
)
_ANSWERS = r"(?:final_)?answer|final|conclusion|captions?|description|alt_text|alt|output|response|result|summary"
_ANSWER = re.compile(rf"(?P<opens><(?:{_ANSWERS})>)|</(?:{_ANSWERS})>", re.IGNORECASE)
_INLINE = r"b|i|u|em|strong|span|mark|font|sub|sup|small|big|a|code|tt|ref|phrase|object|grounding|delim|points?|label"
_LINES = (
    r"p|br|div|ul|ol|tr|td|th|table|hr|h[1-6]|section|article|body|html|head|sentence|paragraph|text|title|list|item"
)
_TAG = re.compile(
    rf"(?P<inline></?(?:{_INLINE})(?:\s[^<>\n]{{0,200}})?/?>)"
    rf"|(?P<line></?(?:{_LINES})(?:\s[^<>\n]{{0,200}})?/?>)|(?P<item></?li>)"
    r"|<(?:img|image)\s[^<>\n]{0,200}\b(?:alt|caption|title)\s?=\s?\"(?P<alt>[^\"<>\n]{1,400})\"[^<>\n]{0,200}>"
    rf"|</?(?:{_ANSWERS}|tool_call|function|img|image|im_patch|im_start|im_end|video|audio|unk|pad|bos|eos|cls|sep|mask"
    rf"|bob|eob|end_code|end|assistant|user|system|img_context|image_soft_token|(?:image|img)_?\d{{1,3}})(?:\s[^<>\n]{{0,200}})?/?>"
    rf"|<{_BAR}[^<>|｜\n]{{1,60}}{_BAR}>|<{_BAR}\w{{0,20}}{_BAR}?\Z|</s?\Z"  # the last may be cut
    rf"|<(?:loc|seg|extra_id|unused|patch_index|reserved_special_token|coord|bin|x|y)[_-]?\d{{1,6}}>|<[\d\s.,%-]{{1,80}}>"
    rf"|\[/?(?:INST|PAD|UNK|CLS|SEP|MASK|BOS|EOS|IMG|IMG_END|IMG_BREAK|TOOL_CALLS|END)\]|\[{_BAR}[^\[\]|｜\n]{{1,60}}{_BAR}\]|<</?SYS>>|\[/?(?:{_ANSWERS})\]:?"
    rf"|<s>|</s>",
    re.IGNORECASE,
)
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")
_AROUND = re.compile(r"\s*<([A-Za-z][\w:.-]{0,40})>")
_CODE = ("script", "style")  # their content is no caption's


def without_tags(text: str) -> str:
    """The text without tags and tokens; of an answer in tags of its own, that answer."""
    if "<" not in text and "[" not in text:
        return text
    text = _BYTES.sub(_decoded, text)
    text = _inside(_ANSWER, text, keeps=True)
    text = _inside(_BLOCK, text, keeps=False)
    text = _TAG.sub(_instead, text)
    if (around := _AROUND.match(text)) and around[1].lower() not in _CODE:
        end = f"</{around[1]}>"
        stripped = text.rstrip()
        if stripped.endswith(end):
            text = stripped[around.end() : -len(end)]
    return text


def _instead(match: re.Match[str]) -> str:
    if match["inline"]:
        return ""
    if match["alt"]:
        return f" {match['alt']} "
    return "\n- " if match["item"] == "<li>" else "\n" if match["line"] or match["item"] else " "


def _decoded(match: re.Match[str]) -> str:
    """Bytes that a vocabulary has no token for."""
    return bytes.fromhex(match[0].replace("<0x", "").replace(">", "")).decode("utf-8", "ignore")


def _inside(blocks: re.Pattern[str], text: str, *, keeps: bool) -> str:
    """What stands inside of blocks, if any is closed (`keeps`), or the text without them; an open one is none."""
    inside, outside, start, opened = list[str](), list[str](), 0, -1
    for mark in blocks.finditer(text):
        if mark["opens"]:
            opened = mark.end()
            begin = mark.start()
        elif opened >= 0:
            outside.append(text[start:begin])
            inside.append(text[opened : mark.start()])
            start, opened = mark.end(), -1
    if not inside or (keeps and not any(map(str.isalnum, "".join(inside)))):
        return text
    return "\n".join(inside[-1:] if keeps else ["".join([*outside, text[start:]])])
