"""Alt text from a table that names the pictures of a folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.ingest.config import FolderSource
from pipeline.ingest.tables import read_table
from pipeline.storage import Location
from pipeline.texts import name_key

EXAMPLES = 2


class CaptionTable:
    """The texts of a table by picture. Of several for one picture the first counts, and that there are more is told.

    Names match as they stand, or else after Unicode normalisation and with either slash. Raises `InputError` if the
    table cannot be read.
    """

    def __init__(self, config: FolderSource, root: Location) -> None:
        assert config.captions is not None
        self.config, self.root = config, root
        path = config.captions
        inside = "://" not in path and not os.path.isabs(os.path.expanduser(path))
        table = read_table(
            root / path if inside else Location.of(path),
            {"file_column": config.file_column, "caption_column": config.caption_column},
            texts=["caption_column"],
            encoding=config.encoding,
            header=config.header,
        )
        self._texts: dict[str, str] = {}
        self._more: set[str] = set()
        for file, texts in table:
            if file is not None and texts:
                name = posixpath.normpath(file)
                first = self._texts.setdefault(name, texts[0])
                if any(text != first for text in texts):
                    self._more.add(name)
        self._names = {key: name for name in self._texts if (key := name_key(name)) != name}
        self._faults = table.faults
        self._used: set[str] = set()

    def text_of(self, file: str) -> str | None:
        """The text of a picture by its path inside the folder."""
        key = name_key(file)
        name = next((name for name in (file, key, self._names.get(key)) if name in self._texts), None)
        if name is None:
            return None
        self._used.add(name)
        return self._texts[name]

    def warnings(self, files: Iterable[str]) -> list[str]:
        """What was left out of the table, after all pictures were looked up. Raises `InputError` if none was found."""
        without = [file for file in files if self.text_of(file) is None]
        lost = [name for name in self._texts if name not in self._used]
        table = self.config.captions
        if not self._used:
            known = f", not like {lost[0]}" if lost else ""
            example = next(iter(without), "none")
            raise InputError(
                f"none of the {len(self._texts):,} captions of {table} is for an image of {self.root}; its column "
                f"{self.config.file_column!r} must hold paths inside that folder, like {example}{known}"
            )
        found = self._faults.sentences(str(table))
        if lost:
            images = f"images without a caption there: {_examples(without)}" if without else "all images have one there"
            found.append(
                f"{table}: {len(lost):,} of the {len(self._texts):,} files that have captions are no image of the "
                f"folder, such as {_examples(lost)}; {images}"
            )
        if more := len(self._more & self._used):
            found.append(
                f"{table}: {more:,} images have more than one caption there, and the first that is not empty is the "
                "alt text; name the table in caption.tables to have them all"
            )
        return found


def _examples(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names[:EXAMPLES])
