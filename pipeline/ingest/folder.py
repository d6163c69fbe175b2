"""A folder of images, with alt text in `.txt` files beside them or in one table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError
from pipeline.identity import digest, image_id
from pipeline.ingest.captions import CaptionTable
from pipeline.ingest.config import FolderSource
from pipeline.ingest.inspect import SUFFIXES, Reference
from pipeline.ingest.source import Identity, Item, stamp_of
from pipeline.storage import Location


class Folder:
    """The images of a folder and its subfolders, sorted by path. Hidden files and folders are left out."""

    def __init__(self, config: FolderSource) -> None:
        self.config = config
        self.root = Location.of(config.path)
        self._sidecars: set[str] = set()
        self.warnings: list[str] = []

    def items(self) -> list[Item]:
        """The images, by path; raises `InputError` if the folder is missing or holds none."""
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "not there"
            raise InputError(f"ingest.source.path {self.root} is {found}; expected a folder of images ({_suffixes()})")
        stamps = dict(_stamped_files(self.root))
        captions = CaptionTable(self.config, self.root) if self.config.captions is not None else None
        items = []
        for name in sorted(stamps):
            if not name.lower().endswith(SUFFIXES):
                continue
            sidecar = f"{name.rpartition('.')[0]}.txt"
            if captions is not None:
                text = captions.text_of(name)
                items.append(Item(name, f"{stamps[name]} {digest(text)}", (name,), text))
            elif sidecar in stamps:
                self._sidecars.add(name)
                items.append(Item(name, f"{stamps[name]} {stamps[sidecar]}", (name,)))
            else:
                items.append(Item(name, stamps[name], (name,)))
        if not items:
            raise InputError(
                f"the folder {self.root} holds no images ({len(stamps)} other files); expected files that end in "
                f"{_suffixes()}, in it or in its subfolders"
            )
        if captions is not None:
            self.warnings = captions.warnings(item.name for item in items)
        return items

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A file is the same as long as it has the same path."""
        return (row["source"],)

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:
        """Time stamps change with every copy of a data set; content decides."""
        try:
            found = image_id((self.root / item.name).read())
        except OSError:
            found = None
        return found == row["source_hash"] and self.describe(item)[0] == row["alt_text"]

    def describe(self, item: Item) -> tuple[str | None, str | None]:
        """Alt text from the table or the `.txt` beside the image; a file has no URL."""
        if item.name not in self._sidecars:
            return item.alt_text, None
        text = (self.root / f"{item.name.rpartition('.')[0]}.txt").read().decode(errors="replace").strip()
        return text or None, None

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        """Files are read where they lie."""
        for batch in batches:
            yield [Reference((self.root / item.name).uri) for item in batch]


def _stamped_files(root: Location) -> Iterator[tuple[str, str]]:
    """(path inside the folder, stamp) of every file that is not hidden; links to files and folders are followed."""
    if not root.is_local:
        for location, info in root.entries(recursive=True):
            name = location.uri.removeprefix(root.uri).lstrip("/")
            if not any(part.startswith(".") for part in name.split("/")):
                yield name, stamp_of(info)
        return
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root.uri, followlinks=True):
        seen.add(os.path.realpath(folder))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) not in seen
        ]
        for file in files:
            path = os.path.join(folder, file)
            if not file.startswith(".") and os.path.isfile(path):
                status = os.stat(path)
                yield os.path.relpath(path, root.uri), f"{status.st_size}@{status.st_mtime_ns}"


def _suffixes() -> str:
    return " ".join(SUFFIXES)
