"""Alt text from a table that names the pictures of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.ingest.config import FolderSource
from pipeline.ingest.tables import find_tables, read_table, told
from pipeline.storage import Location
from pipeline.summary import counted
from pipeline.texts import name_key

EXAMPLES = 2


class AltTextTable:
    """The texts of a table by picture: each row of a picture has one. Of a list the first counts; more are told.

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
        self._texts: dict[str, list[str]] = {}
        self._more = self._nameless = 0
        for file, texts in table:
            if file is None:
                self._nameless += len(texts) > 0
            elif texts:
                self._texts.setdefault(name_key(file), []).append(texts[0])
                self._more += len(texts) > 1
        self._faults = told(table, config.captions, "ingest.source")
        self._used: set[str] = set()

    def texts_of(self, file: str) -> tuple[str, ...]:
        """The texts of a picture by its path inside the folder, each once."""
        key = name_key(file)
        texts = self._texts.get(key, ())
        if texts:
            self._used.add(key)
        return tuple(dict.fromkeys(texts))

    def warnings(self, files: Iterable[str]) -> list[str]:
        """What was left out of the table, after all pictures were looked up. Raises `InputError` if none was found."""
        without = [file for file in files if not self.texts_of(file)]
        lost = [name for name in self._texts if name not in self._used]
        faults = list(self._faults)
        count = sum(map(len, self._texts.values()))
        if not self._texts:
            raise InputError(
                "; ".join([f"column {self.config.caption_column!r} of {self.about} holds no text", *faults])
            )
        if not self._used:
            raise InputError(
                f"no caption of {self.about} ({count:,} in all) is for an image of {self.root}; its "
                f"column {self.config.file_column!r} must hold paths inside that folder, like {without[0]}; it holds "
                f"{_examples(lost)}"
            )
        if lost:
            others = f"images without a caption: {_examples(without)}" if without else "all images have one"
            lost_count = sum(len(self._texts[name]) for name in lost)
            faults.append(
                f"{self.about}: {counted(lost_count, 'caption is', 'captions are')} for no image of the folder "
                f"(of {count:,}), such as {_examples(lost)}; {others}"
            )
        if self._nameless:
            faults.append(f"{self.about}: {counted(self._nameless, 'caption names', 'captions name')} no file")
        if self._more:
            faults.append(
                f"{self.about}: {counted(self._more, 'row has', 'rows have')} more than one caption, and the first "
                "that is not empty is the alt text; name the table in caption.tables to have them all"
            )
        return faults


def _examples(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names[:EXAMPLES])
