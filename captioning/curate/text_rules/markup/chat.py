"""Chat formats: turns and their tokens, and what a model thought before it answered.

An answer is the first turn of the assistant that says anything; what follows its end was asked by nobody. A text
begins in the assistant's turn, unless a mark says that what came before it was the user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from captioning.curate.text_rules.markup.tags import without_tags

_BAR = "[|｜]"
_ROLES = r"(?P<role>assistant|model|bot|user|human|system|tool|developer)"
_TURN = re.compile(
    rf"(?P<ends></s>|[<\[]{_BAR}(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|eos|eot|return|call|end▁of▁sentence"
    rf"|end_of_turn\w*|END_OF_TURN_TOKEN|endofturn){_BAR}[>\]]|<(?:end_of_turn|eos|end_of_utterance|turn{_BAR}|eoa|eoc)>"
    rf"|\[EOS\]|\[SEP\])"
    rf"|(?P<asked>\[/INST\]|<</SYS>>)"
    rf"|<{_BAR}?(?:im_start|start_header_id|start_of_turn|start|START_OF_TURN_TOKEN|turn){_BAR}?>\s{{0,9}}(?:{_ROLES}\b)?"
    rf"(?:<{_BAR}end_header_id{_BAR}>)?"
    rf"|[<\[]{_BAR}(?P<named>assistant|user|system|human|model|bot|CHATBOT_TOKEN|USER_TOKEN){_BAR}[>\]]"
    rf"|(?P<begins><s>|<bos>|<{_BAR}begin▁of▁sentence{_BAR}>|<{_BAR}(?:begin_of_text|startoftext){_BAR}>|\[BOS\]|\[CLS\])"
    r"|(?P<answers>(?-i:\bASSISTANT:)|^[ \t]{0,9}#{0,4}[ \t]{0,9}(?:assistant|response|answer)[ \t]{0,9}:)"
    r"|(?P<line>^[ \t]{0,9}(?:user|human)[ \t]{0,9}:|#{2,4}[ \t]{0,9}(?:user|human|instruction)[ \t]{0,9}:|\[INST\])",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST_LINE = re.compile(r"\s*(?:#{1,6}\s*)?assistant[ \t]*:?[ \t]*\n", re.IGNORECASE)
_THOUGHTS = r"(?:\w{1,20}[:_])?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|rationale)"
_THINKS = re.compile(
    rf"(?P<opens><{_BAR}?(?:begin_of_)?{_THOUGHTS}{_BAR}?>|\[THINK\]|◁think(?:ing)?▷|<{_BAR}channel{_BAR}>\s?analysis\b"
    rf"(?:<{_BAR}message{_BAR}>)?)"
    rf"|</{_THOUGHTS}>|<{_BAR}(?:/|end_of_){_THOUGHTS}{_BAR}>|\[/THINK\]|◁/think(?:ing)?▷"
    rf"|<{_BAR}channel{_BAR}>\s?final\b(?:<{_BAR}message{_BAR}>)?",
    re.IGNORECASE,
)
_OURS = ("assistant", "model", "bot", "chatbot_token")
_ANSWER, _NOBODY, _BEFORE, _ASKED = "answer", "nobody", "before the end of a question", "asked"


def answer_of(text: str) -> str:
    """The first thing that the assistant says, without its thoughts."""
    text = _without_thoughts(text)
    text = _FIRST_LINE.sub("", text, count=1) if _FIRST_LINE.match(text) else text
    if not _TURN.search(text):
        return text
    turns = [(whose, part) for whose, part in _turns(text) if any(map(str.isalnum, without_tags(part)))]
    for speaker in (_ANSWER, _NOBODY, _BEFORE):
        said = next((part for whose, part in turns if whose == speaker), "")
        if said:
            return said.lstrip(": \n")
    return ""


def _turns(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a text between marks of turns, and whose turn each is."""
    whose, start = _ANSWER, 0
    for mark in _TURN.finditer(text):
        if mark["answers"] and whose == _ANSWER:  # it only announces the caption, which an opener is for
            continue
        yield _BEFORE if mark["asked"] and whose == _ANSWER else whose, text[start : mark.start()]
        start = mark.end()
        role = (mark["role"] or mark["named"] or "").lower()
        asks = mark["line"] or (role and role not in _OURS)
        whose = _NOBODY if mark["ends"] else _ASKED if asks else _ANSWER
    yield whose, text[start:]


def _without_thoughts(text: str) -> str:
    """What stands outside of thoughts. A mark without its other half takes all before or after it."""
    parts, start, thinks = list[str](), 0, False
    for mark in _THINKS.finditer(text):
        if mark["opens"]:
            if not thinks:
                parts.append(text[start : mark.start()])
            thinks = True
        elif thinks:
            thinks = False
        else:
            parts.clear()
        start = mark.end()
    return "".join(parts if thinks else [*parts, text[start:]])
