"""Text files beside pictures, and text members of tars: what each says, and which of several counts.

`a.txt`, `a.text` and `a.caption` are texts; `a.json` holds an object whose fields are texts, or a text itself. A text
goes by a name: what its file ends in (`txt`), the JSON field that holds it, or in tars its role (`outputs` of
`s0.outputs.txt`). The setting `ingest.source.text` lists the names that count, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline import texts
from pipeline.ingest.config import FolderSource, WebdatasetSource
from pipeline.ingest.tally import Tally
from pipeline.texts import Encoding, Text

SUFFIXES = (".txt", ".text", ".caption", ".json")
NAMES = ("txt", "caption", "alt_text", "text", "json")  # that count where none are set
UNPAIRED = "texts without a picture of their name"
BLANK = "texts that are empty"
NO_FIELD = "JSON files without a text in the fields that count"
UNNAMED = "texts that ingest.source.text does not name"
SEVERAL = "texts of one picture, of which ingest.source.text names none"
BESIDE = "texts beside another text of their picture, which counts (ingest.source.text can name others)"
TOO_LONG = "texts longer than ingest.source.max_text_bytes"
TOO_MUCH = "texts of a tar beyond 1,024 times ingest.source.max_text_bytes"
MOST_TEXTS = 1024  # times the longest text: what all texts of a tar may take together, as they are held in memory
JSON_TIMES = 16  # times the longest text: a JSON file, of which only some fields are texts that count
UNREADABLE = "texts that cannot be read"
NOT_UTF = f"texts that are {texts.NOT_TEXT}; if they are Windows-1252, set ingest.source.encoding"
NO_JSON = "JSON files that cannot be read"


@dataclass(frozen=True, slots=True)
class TextRules:
    """Which texts count, and how they are read. `names` is None where the usual ones count.

    With `first_line` a text file says what its first line says that is not empty; fields of JSON are whole texts.
    """

    names: tuple[str, ...] | None = None
    encoding: Encoding = "utf-8"
    max_bytes: int = 64 << 10
    first_line: bool = False

    @classmethod
    def of(cls, config: FolderSource | WebdatasetSource) -> TextRules:
        """As configured."""
        return cls(config.text, config.encoding, config.max_text_bytes, config.lines == "first")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names that count, in order."""
        return NAMES if self.names is None else self.names

    def may_be_read(self, file: str, size: int) -> bool:
        """Whether a file of so many bytes may hold a text that is not too long."""
        return size <= self.max_bytes * (JSON_TIMES if file.lower().endswith(".json") else 1)


@dataclass(slots=True)
class Sidecar:
    """What one text file says: texts by the names they go by, or the reason why it says nothing.

    `by_role` if it is not named like the picture, and goes by its role alone.
    """

    file: str
    by_name: dict[str, Text] = field(default_factory=dict)
    url: str | None = None
    problem: str | None = None
    has_fields: bool = False
    role: str | None = None
    by_role: bool = False

    @property
    def length(self) -> int:
        """Characters of all its texts."""
        return sum(len(text.text or "") for text in self.by_name.values())

    @property
    def whole(self) -> Text:
        """The text of a file without fields."""
        return next(iter(self.by_name.values()), Text())

    def text(self, name: str) -> Text | None:
        """The text that goes by a name."""
        if self.has_fields:
            return self.by_name.get(name)
        return self.whole if name == self.role or (not self.by_role and name in self.by_name) else None


def read_sidecar(file: str, data: bytes, rules: TextRules) -> Sidecar:
    """Read a text file. `file` is its name, `data` what it holds."""
    sidecar = _read(file, data, rules)
    if any(len((text.text or "").encode()) > rules.max_bytes for text in sidecar.by_name.values()):
        return Sidecar(file, url=sidecar.url, problem=TOO_LONG)
    return sidecar


def _read(file: str, data: bytes, rules: TextRules) -> Sidecar:
    suffix = file.rpartition(".")[2].lower()
    decoded = texts.decode(data, rules.encoding)
    if suffix != "json":
        return Sidecar(file, {suffix: _first_line(decoded) if rules.first_line else decoded})
    try:
        content = texts.parse_json(decoded.text or data)
    except ValueError:
        return Sidecar(file, problem=NO_JSON)
    if not isinstance(content, dict):
        return Sidecar(file, {"json": texts.first_text(content)})
    by_name = {name: texts.first_text(content[name]) for name in rules.wanted if name in content}
    url = content.get("url")
    return Sidecar(file, by_name, texts.clean(url).text if isinstance(url, str) else None, has_fields=True)


def _first_line(text: Text) -> Text:
    lines = (text.text or "").splitlines()
    return text._replace(text=next((line.strip() for line in lines if line.strip()), None))


def choose(
    groups: Sequence[Sequence[Sidecar]], rules: TextRules, left_out: Tally, mended: Tally
) -> tuple[str | None, str | None]:
    """Alt text and URL of a picture, from its sidecars in groups, the closest group first.

    What is lost or mended on the way is counted.
    """
    paired = [sidecar for group in groups for sidecar in group]
    url = next((sidecar.url for sidecar in paired if sidecar.url), None)
    for sidecar in paired:
        if sidecar.problem is not None:
            left_out.add(sidecar.problem, sidecar.file)
    named = {sidecar.file for sidecar in paired if sidecar.problem is not None}
    for sidecar, text in _candidates(groups, rules):
        if text.text is not None:
            for fault in text.faults:
                mended.add(fault, sidecar.file)
            for file in _beside(sidecar, text, groups, rules):
                left_out.add(BESIDE, file)
            return text.text, url
        if text.refused is not None or texts.NOT_TEXT in text.faults:
            left_out.add(f"texts that are no text, but {text.refused}" if text.refused else NOT_UTF, sidecar.file)
            named.add(sidecar.file)
    for sidecar in paired:
        if sidecar.file not in named:
            left_out.add(_why_not(sidecar, rules), sidecar.file)
    return None, url


def _candidates(groups: Sequence[Sequence[Sidecar]], rules: TextRules) -> Iterator[tuple[Sidecar, Text]]:
    """Texts in the order in which they count. One whose role nobody named is the last, if it is the only one."""
    for group in groups:
        for name in rules.wanted:
            for sidecar in group:
                text = sidecar.text(name)
                if text is not None:
                    yield sidecar, text
    others = [sidecar for group in groups for sidecar in group if sidecar.by_role and not sidecar.has_fields]
    others = [sidecar for sidecar in others if sidecar.role not in rules.wanted and sidecar.whole.text is not None]
    if rules.names is None and len(others) == 1:
        yield others[0], others[0].whole


def _beside(chosen: Sidecar, text: Text, groups: Sequence[Sequence[Sidecar]], rules: TextRules) -> list[str]:
    """Files that say something else of the same picture, unless somebody named the texts that count."""
    if rules.names is not None:
        return []
    group = next(group for group in groups if chosen in group)
    said = [
        (other, [other.text(name) for name in rules.wanted] if other.has_fields else [other.whole]) for other in group
    ]
    return [
        other.file
        for other, own in said
        if other is not chosen
        and (words := {one.text for one in own if one is not None and one.text is not None})
        and text.text not in words
    ]


def _why_not(sidecar: Sidecar, rules: TextRules) -> str:
    if sidecar.has_fields:
        return NO_FIELD
    if sidecar.whole.text is None:
        return BLANK
    return SEVERAL if rules.names is None else UNNAMED
