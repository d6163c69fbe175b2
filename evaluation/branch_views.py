"""What the report shows of a picture as each branch has it (made by `evaluation.knowledge`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A text of a benchmark."""

    text: str
    perspective: str
    is_true: bool = True  # for the picture


@dataclass(frozen=True)
class BranchView:
    """A picture as one branch has it: lit where the score for `asked` comes from, as a data URI."""

    branch: str
    asked: Caption
    cosine: float
    fall: float  # of the cosine, where the most relevant cell is covered
    lit: str
    nearest: tuple[Caption, ...]


@dataclass(frozen=True)
class Known:
    """A picture as the model takes it, as a data URI, and what each branch knows of it."""

    file: str
    picture: str
    views: tuple[BranchView, ...]
