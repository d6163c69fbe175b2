"""What people want to know of a result, as lines made from its manifest.

`Stage.describe` makes them: the first line says what came out, further lines say more. They end a stage's run on the
terminal, stand in `holism status` and are Prefect's summary. Here are the default and what stages share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.manifest import Manifest

MOST_FIGURES = 6


def plain(manifest: Manifest) -> list[str]:
    """The plain figures of a manifest's counts in one line."""
    figures = {name: value for name, value in manifest.counts.items() if isinstance(value, (int, float, str))}
    told = [f"{words(name)} {number(value)}" for name, value in figures.items()]
    return [", ".join(told[:MOST_FIGURES]) or "no figures"]


def shares(counts: Mapping[str, int], total: int, most: int = MOST_FIGURES) -> str:
    """`too short 4 (2.4 %), off topic 2 (1.2 %)`: the largest counts with their shares of `total`."""
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{name} {count:,}{share(count, total)}" for name, count in largest if count]
    return ", ".join(told[:most]) + (f", and {len(told) - most:,} more" if len(told) > most else "")


def share(count: int, total: int) -> str:
    """` (2.4 %)`, or nothing where there is no total."""
    return f" ({100 * count / total:.1f} %)" if total else ""


def counted(count: int, one: str, several: str | None = None) -> str:
    """`1 image`, `2,000 images`; `several` where an s is not all that differs: `1 row has`, `2 rows have`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def number(value: float | str) -> str:
    """A figure with thousands separators and at most four digits that matter."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def words(name: str) -> str:
    """A name of the code as words."""
    return name.replace("_", " ")
