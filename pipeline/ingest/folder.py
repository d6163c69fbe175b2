"""A folder of images, with alt text in files beside them or in one table, where a picture may have many rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import picture_kinds
from pipeline.errors import InputError
from pipeline.identity import digest, image_id
from pipeline.ingest.captions import AltTextTable
from pipeline.ingest.config import FolderSource
from pipeline.ingest.inspect import Reference
from pipeline.ingest.listing import LEAVING, File, files_of, pictures_among
from pipeline.ingest.names import of_suffix, stem_of, suffix_of
from pipeline.ingest.sidecars import (
    SUFFIXES,
    TOO_LONG,
    UNPAIRED,
    UNREADABLE,
    Sidecar,
    TextRules,
    choose,
    read_sidecar,
)
from pipeline.ingest.source import Described, Identity, Item
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.summary import counted
from pipeline.texts import NAME, name_key

IN_TABLE = "texts beside pictures, since ingest.source.captions names a table"
READING = 2  # raised when texts are read by other rules: pictures with texts are then looked at again


class Folder:
    """The images of a folder and its subfolders, sorted by path. Hidden files and folders are left out.

    `left_out` counts, after `items`, the files that are not used; `mended` names that had to be escaped.
    """

    lasting = False

    def __init__(self, config: FolderSource) -> None:
        self.config = config
        self.root = Location.of(config.path)
        self.rules = TextRules.of(config)
        self.left_out, self.mended = Tally(), Tally()
        self.warnings: list[str] = []
        self._files: dict[str, File] = {}  # pictures by name
        self._sidecars: dict[str, list[File]] = {}  # texts by the name of their picture

    def items(self) -> list[Item]:
        """The images, by path; raises `InputError` if the folder is missing or holds none."""
        if not self.root.is_dir():
            kind = "a file" if self.root.exists() else "not there"
            raise InputError(f"ingest.source.path {self.root} is {kind}; expected a folder of images ({_suffixes()})")
        self.left_out, self.mended = Tally(), Tally()
        captions = AltTextTable(self.config, self.root) if self.config.captions is not None else None
        files = files_of(self.root, follow_links=self.config.follow_links, left_out=self.left_out)
        if captions is not None:
            files = [file for file in files if self.root / file.path not in captions.files]
        pictures, texts = self._sorted_out(files)
        if not pictures:
            raise InputError(self._why_none(files))
        self._files = {file.name: file for file in pictures}
        if captions is None:
            self._pair(pictures, texts)
            return [
                Item(file.name, self._stamp(file), (file.name,), size=file.size + self._text_size(file))
                for file in pictures
            ]
        for file in texts:
            self.left_out.add(IN_TABLE, file.name)
        items = [
            Item(file.name, f"{file.stamp} {digest(text)}", (file.name, text), text, file.size)
            for file in pictures
            for text in captions.texts_of(file.name) or (None,)
        ]
        self.warnings = captions.warnings(file.name for file in pictures)
        return items

    def identity(self, row: Mapping[str, Any]) -> Identity:
        """A file is the same as long as it has the same path; with another caption of a table it is another item."""
        return (row["source"],) if self.config.captions is None else (row["source"], row["alt_text"])

    def picture(self, name: str) -> str | None:
        """The file."""
        return name

    def unchanged(self, item: Item, row: Mapping[str, Any]) -> bool:
        """Time stamps change with every copy of a data set; content decides."""
        try:
            content = image_id(self._place(item).read()) if self._fits(item) else None
        except OSError:
            content = None
        return content == row["source_hash"] and self.describe(item).alt_text == row["alt_text"]

    def describe(self, item: Item) -> Described:
        """Alt text from the table, or from the texts beside the image."""
        if item.name not in self._sidecars:
            return Described(item.alt_text)
        described = Described()
        sidecars = [self._read(file) for file in self._sidecars[item.name]]
        described.alt_text, _ = choose([sidecars], self.rules, described.left_out, described.mended)
        return described

    def fetch(self, batches: Sequence[Sequence[Item]]) -> Iterator[list[Reference | str]]:
        """Files are read where they lie."""
        for batch in batches:
            yield [
                Reference(self._place(item).uri)
                if self._fits(item)
                else f"longer than ingest.source.max_image_bytes ({self._files[item.name].size:,} bytes)"
                for item in batch
            ]

    def _sorted_out(self, files: Sequence[File]) -> tuple[list[File], list[File]]:
        """The pictures and the texts of the folder; the others are counted."""
        pictures = {file.name for file in files if suffix_of(file.name) in picture_kinds.SUFFIXES}
        texts = [file for file in files if suffix_of(file.name) in SUFFIXES]
        known = (*picture_kinds.SUFFIXES, *SUFFIXES, *picture_kinds.OTHER_SUFFIXES)
        pictures |= pictures_among(self.root, [file for file in files if suffix_of(file.name) not in known])
        for file in files:
            suffix = suffix_of(file.name)
            if file.name not in pictures and suffix not in SUFFIXES:
                self.left_out.add(of_suffix(suffix), file.name)
            if file.name != file.path:
                self.mended.add(NAME, file.name)
        return [file for file in files if file.name in pictures], texts

    def _pair(self, pictures: Sequence[File], texts: Sequence[File]) -> None:
        """A text belongs to the picture whose name it has, in full (`a.jpg.txt`) or up to the last dot."""
        by_stem: dict[str, list[File]] = defaultdict(list)
        for text in texts:
            by_stem[name_key(stem_of(text.name))].append(text)
        for picture in pictures:
            name = name_key(picture.name)
            own = [text for stem in dict.fromkeys((name, stem_of(name))) for text in by_stem.get(stem, ())]
            if own:
                self._sidecars[picture.name] = own
        used = {text.name for own in self._sidecars.values() for text in own}
        for text in texts:
            if text.name not in used:
                self.left_out.add(UNPAIRED, text.name)

    def _stamp(self, file: File) -> str:
        own = self._sidecars.get(file.name)
        return file.stamp if not own else " ".join([file.stamp, *(text.stamp for text in own), str(READING)])

    def _read(self, file: File) -> Sidecar:
        if not self.rules.may_be_read(file.name, file.size):
            return Sidecar(file.name, problem=TOO_LONG)
        try:
            data = (self.root / file.path).read_range(0, file.size)
        except OSError:
            return Sidecar(file.name, problem=UNREADABLE)
        return read_sidecar(file.name, data, self.rules)

    def _text_size(self, picture: File) -> int:
        own = self._sidecars.get(picture.name, ())
        return sum(min(text.size, self.rules.max_bytes) for text in own)

    def _fits(self, item: Item) -> bool:
        return self._files[item.name].size <= self.config.max_image_bytes

    def _place(self, item: Item) -> Location:
        return self.root / self._files[item.name].path

    def _why_none(self, files: Sequence[File]) -> str:
        links = self.left_out[LEAVING]
        also = (
            f", and {counted(links, 'link that leads', 'links that lead')} out of it: set "
            "ingest.source.follow_links to take those"
            if links
            else ""
        )
        return (
            f"the folder {self.root} holds no images ({counted(len(files), 'other file')}{also}); expected files that "
            f"end in {_suffixes()}, or pictures of another name, in it or in its subfolders"
        )


def _suffixes() -> str:
    return " ".join(picture_kinds.SUFFIXES)
