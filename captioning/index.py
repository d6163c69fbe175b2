"""The index of the caption store: which image has which answers, and in which parts they lie.

An answer is known by its image's id and its cell, wherever the image lies and whatever it is called there. So what is
missing is found image by image, and an answer that is in the store is never paid for again: not for pictures that were
moved, packed anew or added a second time, nor with other chunk sizes.

The index is kept on disk in a few Parquet files and can always be made again from the parts on record. An entry of it
stands for the rows of one image in one part: the cells that were answered, those that failed, and those of images that
are in quarantine. Most images share the same few sets of cells, so an entry takes about 30 bytes of memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.commits import Part
from pipeline.errors import StoreError
from pipeline.identity import digest
from pipeline.progress import Progress
from pipeline.storage import Location

INDEX = "_index"
QUARANTINED = "quarantined"  # how the error of an image begins that crashed the engine twice on its own
MANY_SEGMENTS = 8  # files of the index, from which on they become one
READERS = 4  # threads
WORTH_A_LINE = 2000  # parts to be looked at, from which on progress is shown
SETS = ("ok", "failed", "quarantined")
SCHEMA = pa.schema(
    [("image", pa.binary(16)), ("part", pa.dictionary(pa.int32(), pa.string()))]
    + [(name, pa.dictionary(pa.int32(), pa.string())) for name in SETS]
)


@dataclass(frozen=True)
class Answers:
    """The cells of one image: answered, failed, and failed for good. A cell that was answered once is not failed."""

    ok: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    quarantined: frozenset[str] = frozenset()

    def with_more(self, other: Answers) -> Answers:
        """What is known when another part has rows of the same image."""
        ok = self.ok | other.ok
        return Answers(ok, (self.failed | other.failed) - ok, (self.quarantined | other.quarantined) - ok)


NOTHING = Answers()


class AnswerIndex:
    """What is known of images, by id. Images are numbers in arrays here: 16 bytes of id each.

    `parts` are the names of the parts in question, `answers` all distinct sets of answers; of the sorted images
    `images_I`, `answers_I` says which of these they have.
    """

    def __init__(self, entries: pa.Table) -> None:
        """`entries` is a table of `SCHEMA`."""
        entries = entries.unify_dictionaries().combine_chunks()
        parts = entries["part"].combine_chunks() if len(entries) else pa.array([], SCHEMA.field("part").type)
        self.parts: list[str] = [_name_of(key) for key in parts.dictionary.to_pylist()]
        images_E = _ids(entries["image"])
        order_E = np.argsort(images_E, kind="stable")
        self._part_E = parts.indices.to_numpy(zero_copy_only=False)[order_E]
        images_E = images_E[order_E]
        is_first_E = np.ones(len(images_E), bool)
        is_first_E[1:] = images_E[1:] != images_E[:-1]
        self._first_I = np.flatnonzero(is_first_E)
        self._count_I = np.diff(self._first_I, append=len(images_E))
        self.images_I = images_E[is_first_E]
        kinds, kind_E = _kinds(entries)
        self.answers, self.answers_I = _together(kinds, kind_E[order_E], self._first_I, self._count_I)

    def look_up(self, ids_N: np.ndarray) -> np.ndarray:
        """For each of these ids its place in `images_I`, or -1."""
        if not len(self.images_I):
            return np.full(len(ids_N), -1)
        place_N = np.searchsorted(self.images_I, ids_N)
        place_N[place_N == len(self.images_I)] = 0
        return np.where(self.images_I[place_N] == ids_N, place_N, -1)

    def answers_of(self, place: int) -> Answers:
        """What is known of an image, by its place."""
        return self.answers[self.answers_I[place]] if place >= 0 else NOTHING

    def parts_of(self, places_N: np.ndarray) -> set[str]:
        """Names of the parts that hold anything of these images, by their places."""
        known_N = places_N[places_N >= 0]
        first_N, count_N = self._first_I[known_N], self._count_I[known_N]
        within_E = np.arange(count_N.sum()) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        return {self.parts[number] for number in np.unique(self._part_E[np.repeat(first_N, count_N) + within_E])}


def ids(images: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Image ids, 32 hexadecimal digits each, as arrays of 16 bytes; null is all zeros."""
    filled = pc.fill_null(images, "0" * 32)
    text = b"".join(chunk.encode() for chunk in filled.to_pylist())
    return np.frombuffer(bytes.fromhex(text.decode()), "S16")


def load(folder: Location, parts: Mapping[str, Part], *, save: bool) -> AnswerIndex:
    """The index over these parts of a caption store; what it lacks is read from the parts.

    With `save` it is written back, if it was not complete.
    """
    wanted = {_key(part): part for part in parts.values() if part.rows}
    segments = _read_segments(folder)
    known = pa.concat_tables([SCHEMA.empty_table(), *segments.values()]).unify_dictionaries()
    known, covered = _of_parts(known, wanted)
    fresh = _look_at(folder, [part for key, part in wanted.items() if key not in covered])
    whole = pa.concat_tables([known, fresh])
    if save and len(fresh):
        _write(folder, fresh, whole, segments)
    return AnswerIndex(whole)


def _of_parts(entries: pa.Table, wanted: Mapping[str, Part]) -> tuple[pa.Table, set[str]]:
    """The entries of parts that are there, and the keys of these parts."""
    if not len(entries):
        return entries, set()
    column = entries["part"].combine_chunks()
    keys, code_E = column.dictionary.to_pylist(), column.indices.to_numpy(zero_copy_only=False)
    covered = {keys[code] for code in np.unique(code_E).tolist()} & set(wanted)
    if len(covered) == len(keys):
        return entries, covered
    return entries.filter(pa.array(np.array([key in covered for key in keys])[code_E])), covered


def _look_at(folder: Location, parts: Sequence[Part]) -> pa.Table:
    """The entries of parts that the index does not know."""
    progress = Progress("caption: index", len(parts), "parts") if len(parts) >= WORTH_A_LINE else None
    entries = _Entries()
    with ThreadPoolExecutor(READERS) as pool:
        for part, images in zip(parts, pool.map(lambda part: _images_of(folder, part), parts), strict=True):
            entries.add(_key(part), images)
            if progress:
                progress.update()
    if progress:
        progress.close()
    return entries.table()


def _images_of(folder: Location, part: Part) -> dict[str, tuple[str, ...]]:
    """The images that a part has rows of, each with its cells of each of `SETS`, written as one text."""
    columns = ["image_id", "cell", "status", "error"]
    table = schemas.read(folder / part.name, schemas.CAPTIONS, columns, recorded=(part.digest, "caption"))
    sets_of: dict[str, tuple[list[str], list[str], list[str]]] = {}
    for image, cell, status, error in zip(*(table[name].to_pylist() for name in columns), strict=True):
        ok, failed, quarantined = sets_of.setdefault(image, ([], [], []))
        (ok if status == "ok" else failed).append(cell)
        if status != "ok" and (error or "").startswith(QUARANTINED):
            quarantined.append(cell)
    return {image: tuple(" ".join(cells) for cells in sets) for image, sets in sets_of.items()}


class _Entries:
    """A table of entries that grows part by part. Numbers and bytes: there may be a hundred million."""

    def __init__(self) -> None:
        self._images = bytearray()
        self._parts: dict[str, int] = {}
        self._part = array("i")
        self._known: list[dict[str, int]] = [{} for _ in SETS]
        self._codes = [array("i") for _ in SETS]

    def add(self, key: str, images: Mapping[str, tuple[str, ...]]) -> None:
        """Add what one part holds."""
        number = self._parts.setdefault(key, len(self._parts))
        self._images += bytes.fromhex("".join(images))
        self._part.extend([number] * len(images))
        for texts in images.values():
            for text, known, codes in zip(texts, self._known, self._codes, strict=True):
                codes.append(known.setdefault(text, len(known)))

    def table(self) -> pa.Table:
        """All of it, as `SCHEMA` has it."""
        count = len(self._part)
        images = pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(bytes(self._images))])
        words = [(self._part, self._parts), *zip(self._codes, self._known, strict=True)]
        columns = [
            pa.DictionaryArray.from_arrays(
                pa.array(np.frombuffer(codes, np.int32)), pa.array(list(known), pa.string())
            )
            for codes, known in words
        ]
        return pa.table([images, *columns], schema=SCHEMA)


def _key(part: Part) -> str:
    """A part under its name with another content is another part."""
    return f"{part.digest} {part.name}"


def _name_of(key: str) -> str:
    return key.partition(" ")[2]


def _read_segments(folder: Location) -> dict[str, pa.Table]:
    """The files of the index, by URI. One that is damaged, or goes while it is read, is as good as none."""
    tables = {}
    for file, _ in (folder / INDEX).files(".parquet"):
        try:
            data = file.read()
            if digest(data) == file.stem:
                tables[file.uri] = pq.read_table(pa.BufferReader(data), schema=SCHEMA)
        except (OSError, pa.ArrowException, StoreError):
            continue
    return tables


def _write(folder: Location, fresh: pa.Table, whole: pa.Table, segments: Mapping[str, pa.Table]) -> None:
    """A file for what is new; all in one where there were many, or where much of them is out of date."""
    outdated = 2 * (len(whole) - len(fresh)) < sum(map(len, segments.values()))
    together = len(segments) >= MANY_SEGMENTS or outdated
    sink = pa.BufferOutputStream()
    pq.write_table((whole if together else fresh).combine_chunks(), sink, compression="zstd")
    data = bytes(sink.getvalue().to_pybytes())
    (folder / INDEX / f"{digest(data)}.parquet").write(data)
    for uri in segments if together else ():
        Location.of(uri).remove()


def _ids(column: pa.ChunkedArray) -> np.ndarray:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    data = b"".join(memoryview(c.buffers()[1])[16 * c.offset : 16 * (c.offset + len(c))] for c in chunks)
    return np.frombuffer(data, "S16")


def _kinds(entries: pa.Table) -> tuple[list[Answers], np.ndarray]:
    """The distinct sets of cells of entries, and which of them each entry has."""
    if not len(entries):
        return [], np.zeros(0, np.int64)
    code_E, texts = np.zeros(len(entries), np.int64), []
    for name in SETS:
        column = entries[name].combine_chunks()
        texts.append(column.dictionary.to_pylist())
        code_E = code_E * len(texts[-1]) + column.indices.to_numpy(zero_copy_only=False)
    codes, kind_E = np.unique(code_E, return_inverse=True)
    kinds = []
    for code in codes.tolist():
        sets: list[frozenset[str]] = []
        for known in reversed(texts):
            code, number = divmod(code, len(known))
            sets.append(frozenset(known[number].split()))
        kinds.append(Answers(*reversed(sets)))
    return kinds, kind_E


def _together(
    kinds: Sequence[Answers], kind_E: np.ndarray, first_I: np.ndarray, count_I: np.ndarray
) -> tuple[list[Answers], np.ndarray]:
    """The distinct answers of images, and which of them each image has: the n-th entries of all images at a time."""
    answers: list[Answers] = [NOTHING]
    numbers: dict[Answers, int] = {NOTHING: 0}
    answers_I = np.zeros(len(first_I), np.int64)
    for turn in range(int(count_I.max(initial=0))):
        has_I = count_I > turn
        pair_P = answers_I[has_I] * len(kinds) + kind_E[first_I[has_I] + turn]
        pairs, inverse_P = np.unique(pair_P, return_inverse=True)
        after: list[int] = []
        for pair in pairs.tolist():
            state, kind = divmod(pair, len(kinds))
            together = answers[state].with_more(kinds[kind])
            if together not in numbers:
                numbers[together] = len(answers)
                answers.append(together)
            after.append(numbers[together])
        answers_I[has_I] = np.array(after)[inverse_P]
    return answers, answers_I
