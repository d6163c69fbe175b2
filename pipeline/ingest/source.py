"""What a source of single images (a folder, a URL list) offers to the packer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.ingest.inspect import Reference
from pipeline.ingest.tally import Tally

Identity = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, before anybody has looked at it.

    `name` is its path inside the folder, or its URL; `stamp` is another one if the image or its alt text may
    have changed; `identity` says which row of an earlier run it is; `size` is 0 where it is not known yet.
    """

    name: str
    stamp: str
    identity: Identity
    alt_text: str | None = None
    size: int = 0


@dataclass(slots=True)
class Described:
    """What is known of an image beside its bytes, and what was left out or mended of its texts."""

    alt_text: str | None = None
    url: str | None = None
    left_out: Tally = field(default_factory=Tally)
    mended: Tally = field(default_factory=Tally)


class Source(Protocol):
    """Images that are packed into shards here.

    `lasting` says whether what is packed stays the picture of its name, whatever becomes of the source. `warnings`
    says what `items` left out, for the manifest; `left_out` and `mended` count it by reason.
    """

    lasting: bool
    warnings: list[str]
    left_out: Tally
    mended: Tally

    def items(self) -> list[Item]:
        """Everything the source lists, in a fixed order."""

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """The identity of the item that a row of the images table was made of."""

    def picture(self, name: str) -> str | None:
        """What two items have in common if they name the same file or page; None where there is nothing."""

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:
        """Whether the item, whose stamp differs, still has the bytes and the alt text that the row tells of."""

    def describe(self, item: Item) -> Described:
        """Alt text and URL of an item."""

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        """For each batch, in order: where each item's bytes lie, or the reason why there are none.

        The bytes of a batch are there until the next batch is asked for.
        """


def stamp_of(info: Mapping[str, Any]) -> str:
    """Size and time (or tag) of a file: another one when the file may have changed."""
    for name in ("mtime_ns", "mtime", "LastModified", "updated", "ETag", "created"):
        if info.get(name) is not None:
            return f"{info.get('size')}@{info[name]}"
    return f"{info.get('size')}"
