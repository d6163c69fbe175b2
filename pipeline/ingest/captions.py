"""Alt text from a table that names the pictures of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.ingest.config import FolderSource
from pipeline.ingest.tables import find_tables, read_table, told
from pipeline.storage import Location
from pipeline.texts import name_key

EXAMPLES = 2


class CaptionTable:
    """The texts of a table by picture. Of several for one picture the first counts, and that there are more is told.

    Names match after Unicode normalisation and with either slash. Raises `InputError` if the table cannot be read.
    """

    def __init__(self, config: FolderSource, root: Location) -> None:
        assert config.captions is not None
        self.config, self.root, self.about = config, root, config.captions
        path = config.captions
        inside = "://" not in path and not os.path.isabs(os.path.expanduser(path))
        self.files = find_tables((root / path).uri if inside else path, "the table")
        table = read_table(
            self.files,
            {"file_column": config.file_column, "caption_column": config.caption_column},
            texts=["caption_column"],
            encoding=config.encoding,
            header=config.header,
        )
        self._texts: dict[str, str] = {}
        self._more: set[str] = set()
        self._nameless = 0
        for file, texts in table:
            if file is None:
                self._nameless += len(texts) > 0
            elif texts:
                key = name_key(file)
                first = self._texts.setdefault(key, texts[0])
                if any(text != first for text in texts):
                    self._more.add(key)
        self._faults = told(table, config.captions, "ingest.source")
        self._used: set[str] = set()

    def text_of(self, file: str) -> str | None:
        """The text of a picture by its path inside the folder."""
        key = name_key(file)
        text = self._texts.get(key)
        if text is not None:
            self._used.add(key)
        return text

    def warnings(self, files: Iterable[str]) -> list[str]:
        """What was left out of the table, after all pictures were looked up. Raises `InputError` if none was found."""
        without = [file for file in files if self.text_of(file) is None]
        lost = [name for name in self._texts if name not in self._used]
        faults = list(self._faults)
        if not self._texts:
            raise InputError(
                "; ".join([f"column {self.config.caption_column!r} of {self.about} holds no text", *faults])
            )
        if not self._used:
            raise InputError(
                f"none of the {len(self._texts):,} captions of {self.about} is for an image of {self.root}; its "
                f"column {self.config.file_column!r} must hold paths inside that folder, like {without[0]}; it holds "
                f"{_examples(lost)}"
            )
        if lost:
            others = f"images without a caption: {_examples(without)}" if without else "all images have one"
            faults.append(
                f"{self.about}: {len(lost):,} of its {len(self._texts):,} captions are for no image of the folder, "
                f"such as {_examples(lost)}; {others}"
            )
        if self._nameless:
            faults.append(f"{self.about}: {self._nameless:,} captions name no file")
        if more := len(self._more & self._used):
            faults.append(
                f"{self.about}: {more:,} images have more than one caption there, and the first that is not empty is "
                "the alt text; name the table in caption.tables to have them all"
            )
        return faults


def _examples(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names[:EXAMPLES])
