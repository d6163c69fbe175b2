"""Chat formats: turns and their tokens, and what a model thought before it answered.

An answer is the first turn of the assistant that says anything; what follows its end was asked by nobody. A text begins
in the assistant's turn, unless a mark says that what came before it was the user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BAR = "[|｜]"
_ROLES = r"(?P<role>assistant|model|bot|user|human|system|tool|developer)"
_TURN = re.compile(
    rf"(?P<ends></s>|<{_BAR}(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|eos|eot|return|call|end▁of▁sentence"
    rf"|end_of_turn\w*|END_OF_TURN_TOKEN|endofturn){_BAR}>|<(?:end_of_turn|eos|end_of_utterance|turn{_BAR}|eoa|eoc)>"
    rf"|\[EOS\]|\[SEP\])"
    rf"|(?P<asked>\[/INST\]|<</SYS>>)"
    rf"|<{_BAR}?(?:im_start|start_header_id|start_of_turn|start|START_OF_TURN_TOKEN|turn){_BAR}?>\s{{0,9}}(?:{_ROLES}\b)?"
    rf"(?:<{_BAR}end_header_id{_BAR}>)?"
    rf"|<{_BAR}(?P<named>assistant|user|system|human|model|bot|CHATBOT_TOKEN|USER_TOKEN){_BAR}>"
    rf"|(?P<begins><s>|<bos>|<{_BAR}begin▁of▁sentence{_BAR}>|<{_BAR}(?:begin_of_text|startoftext){_BAR}>|\[BOS\]|\[CLS\])"
    rf"|(?P<line>^[ \t]*(?:###[ \t]*)?(?:USER|User|Human|HUMAN|### Instruction)[ \t]*:)",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST_LINE = re.compile(r"\s*(?:#{1,6}\s*)?assistant[ \t]*:?[ \t]*\n", re.IGNORECASE)
_THOUGHTS = r"(?:\w{1,20}:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|rationale)"
_THINKS = re.compile(
    rf"(?P<opens><{_BAR}?(?:begin_of_)?{_THOUGHTS}{_BAR}?>|\[THINK\]|◁think(?:ing)?▷|<{_BAR}channel{_BAR}>\s?analysis\b"
    rf"(?:<{_BAR}message{_BAR}>)?)"
    rf"|</{_THOUGHTS}>|<{_BAR}(?:/|end_of_){_THOUGHTS}{_BAR}>|\[/THINK\]|◁/think(?:ing)?▷"
    rf"|<{_BAR}channel{_BAR}>\s?final\b(?:<{_BAR}message{_BAR}>)?",
    re.IGNORECASE,
)
_OURS = {None, "assistant", "model", "bot", "chatbot_token"}


def answer_of(text: str) -> str:
    """The first thing that the assistant says, without its thoughts."""
    text = _without_thoughts(text)
    text = _FIRST_LINE.sub("", text, count=1) if _FIRST_LINE.match(text) else text
    if not _TURN.search(text):
        return text
    turns = list(_turns(text))
    said = [part for is_answer, part in turns if is_answer and _says(part)]
    left = [part for _, part in turns if _says(part)]
    return (said or left or [""])[0]


def _turns(text: str) -> Iterator[tuple[bool, str]]:
    """The parts of a text between marks of turns, and whether each is the assistant's."""
    is_answer, start = True, 0
    for mark in _TURN.finditer(text):
        yield is_answer and mark["asked"] is None, text[start : mark.start()]
        start = mark.end()
        role = mark["role"] or mark["named"]
        is_answer = mark["ends"] is None and mark["line"] is None and (role.lower() if role else None) in _OURS
    yield is_answer, text[start:]


def _without_thoughts(text: str) -> str:
    """What stands outside of thoughts. What ends them alone ends all before it, what begins them alone all after it."""
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


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))
