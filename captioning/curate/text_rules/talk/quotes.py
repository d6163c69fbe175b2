"""What a text quotes is taken out of it: words on a sign are nobody's talk.

A quotation ends at the first mark that can end it. Where none can, the opening mark is left as it is. What closes a
mark is looked for once and remembered, so that a text of nothing but opening marks takes no longer than any other.
"""

from __future__ import annotations

import re

_OPENS = re.compile(r"[\"“„«`]|(?<!\w)'(?!\s)|(?<!\w)‘")
# An apostrophe inside a word ends nothing, nor does a single quotation go over a line.
_SINGLE = r"(?<!\w){0}|{0}(?!\w)|\n"
_CLOSES = {
    '"': re.compile('"'), "`": re.compile("`"), "“": re.compile("”"), "„": re.compile("[“”]"), "«": re.compile("»"),
    "'": re.compile(_SINGLE.format("'")), "‘": re.compile(_SINGLE.format("’")),
}  # fmt: skip


def unquoted(text: str) -> str:
    """The text with nothing but a quotation mark where it quotes, and a full stop where that may end its sentence."""
    text = text.replace("’", "'") if "‘" not in text else text
    if not _OPENS.search(text):
        return text
    parts, done = list[str](), 0
    closing: dict[str, int] = {}  # the last place found, by opening mark
    for opening in _OPENS.finditer(text):
        start, mark = opening.start(), opening[0]
        if start < done:
            continue
        if closing.get(mark, -1) <= start:
            match = _CLOSES[mark].search(text, start + 1)
            closing[mark] = match.start() if match else len(text)
        stop = closing[mark] + 1
        if stop <= len(text) and _ends(text, stop, mark):
            parts += [text[done:start], '" .' if text[stop - 2] in ".!?" else '"']
            done = stop
    return "".join(parts) + text[done:]


def _ends(text: str, stop: int, mark: str) -> bool:
    """Whether what was found before `stop` closes a quotation: a single mark does so only behind a word."""
    if mark not in "'‘":
        return True
    return text[stop - 1] != "\n" and not (text[stop : stop + 1].isalnum() or text[stop : stop + 1] == "_")
