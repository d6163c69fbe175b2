"""A folder of images, with alt text in `.txt` files beside them or in one table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import InputError
from pipeline.identity import digest, image_id
from pipeline.ingest.config import FolderSource
from pipeline.ingest.inspect import SUFFIXES, Reference
from pipeline.ingest.source import Identity, Item, stamp_of
from pipeline.ingest.tables import read_table
from pipeline.storage import Location


class Folder:
    """The images of a folder and its subfolders, sorted by path. Hidden files and folders are left out."""

    lasting = False

    def __init__(self, config: FolderSource) -> None:
        self.config = config
        self.root = Location.of(config.path)
        self._sidecars: set[str] = set()

    def items(self) -> list[Item]:
        """The images, by path; raises `InputError` if the folder is missing or holds none."""
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "not there"
            raise InputError(f"ingest.source.path {self.root} is {found}; expected a folder of images ({_suffixes()})")
        stamps = dict(_stamped_files(self.root))
        captions = self._captions()
        items = []
        for name in sorted(stamps):
            if not name.lower().endswith(SUFFIXES):
                continue
            sidecar = f"{name.rpartition('.')[0]}.txt"
            if captions is not None:
                items.append(Item(name, f"{stamps[name]} {digest(captions.get(name))}", (name,), captions.get(name)))
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
        if captions is not None and not any(item.alt_text for item in items):
            raise InputError(
                f"none of the {len(captions)} captions of {self.config.captions} is for an image of {self.root}; its "
                f"column {self.config.file_column!r} must hold paths inside that folder, like {items[0].name}"
            )
        return items

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A file is the same as long as it has the same path."""
        return (row["source"],)

    def picture(self, name: str) -> str | None:
        """The file."""
        return name

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

    def _captions(self) -> dict[str, str] | None:
        """Alt text by path inside the folder, if a table is named. The first row of a file counts."""
        if self.config.captions is None:
            return None
        path = self.config.captions
        inside = "://" not in path and not os.path.isabs(os.path.expanduser(path))
        location = self.root / path if inside else Location.of(path)
        columns = {"file_column": self.config.file_column, "caption_column": self.config.caption_column}
        table = read_table(location, columns)
        texts: dict[str, str] = {}
        for file, text in zip(*(table.column(name).to_pylist() for name in columns.values()), strict=True):
            if file is not None and text is not None and str(text).strip():
                texts.setdefault(os.path.normpath(str(file)), str(text).strip())
        return texts


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
