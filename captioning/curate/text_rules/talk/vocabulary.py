"""The words that talk is told by: data (`talk` in phrases.yaml), as other languages have others."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

# Words that say nothing without others around them; every sentence of talk has one of the rest, or asks something.
_NEEDS_OTHERS = {
    "says", "witness", "picture", "load", "perform", "want", "bid_what", "whether", "causes", "hedge", "lead",
    "between", "this", "basis", "numbered", "will", "ground", "demand",
}  # fmt: skip


@dataclass(frozen=True)
class TalkWords:
    """Words by what they do; phrases.yaml explains each. Without any, no text is talk."""

    # who speaks, and how
    speaker: frozenset[str] = frozenset()
    team: frozenset[str] = frozenset()
    witness: frozenset[str] = frozenset()
    numbered: frozenset[str] = frozenset()
    will: frozenset[str] = frozenset()
    negative: frozenset[str] = frozenset()
    regret: frozenset[str] = frozenset()
    # who is spoken to
    reader: frozenset[str] = frozenset()
    want: frozenset[str] = frozenset()
    gave: frozenset[str] = frozenset()
    whether: frozenset[str] = frozenset()
    causes: frozenset[str] = frozenset()
    bid: frozenset[str] = frozenset()
    bid_what: frozenset[str] = frozenset()
    hedge: frozenset[str] = frozenset()
    # what is spoken of
    answer: frozenset[str] = frozenset()
    request: frozenset[str] = frozenset()
    demand: frozenset[str] = frozenset()
    basis: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    this: frozenset[str] = frozenset()
    picture: frozenset[str] = frozenset()
    load: frozenset[str] = frozenset()
    perform: frozenset[str] = frozenset()
    trouble: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    rule: frozenset[str] = frozenset()
    ground: frozenset[str] = frozenset()
    # how words are joined
    says: frozenset[str] = frozenset()
    lead: frozenset[str] = frozenset()
    between: frozenset[str] = frozenset()

    @cached_property
    def told(self) -> frozenset[str]:
        """The answer and the request."""
        return self.answer | self.request

    @cached_property
    def things(self) -> frozenset[str]:
        """All that may be missing, or that one may be asked to do something with."""
        return self.picture | self.answer | self.request

    @cached_property
    def signals(self) -> frozenset[str]:
        """Words one of which every sentence of talk has, if it asks nothing."""
        telling = (getattr(self, field.name) for field in fields(self) if field.name not in _NEEDS_OTHERS)
        signals = frozenset[str]().union(*telling)
        return signals | {word.replace("'", "’") for word in signals}
