"""Looking at images: everything a row of the images table says about one, found by decoding it to the end.

A truncated JPEG opens without complaint and fails only when its last line is asked for, so every image is
decoded in full here, once, in worker processes. What cannot be decoded becomes an error with a reason.
"""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline import picture_kinds
from pipeline.identity import image_id
from pipeline.processes import process_pool
from pipeline.storage import Location

if TYPE_CHECKING:
    import PIL.Image

JPEG_QUALITY = 95
PLAIN = ("L", "RGB", "RGBA", "P", "CMYK")  # modes that always can be looked at
CHUNK = 16  # images a worker takes at a time
AHEAD = 4  # chunks in hand for each worker
WORTH_A_POOL = 128  # fewer images than this are done before a pool has started


@dataclass(frozen=True, slots=True)
class Reference:
    """Where encoded bytes lie: a file, or a range of one."""

    uri: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes; a range that the file does not hold in full is an `OSError`."""
        location = Location.of(self.uri)
        if self.size is None:
            return location.read()
        data = location.read_range(self.offset, self.size)
        if len(data) != self.size:
            raise OSError(f"the file ends {self.size - len(data)} bytes too early")
        return data


@dataclass(frozen=True, slots=True)
class Picture:
    """What was found out about one image. `data` are the bytes to store, if they were asked for."""

    error: str | None = None
    source_hash: str | None = None
    image_id: str | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    format: str | None = None
    data: bytes | None = None


def inspect(data: bytes, resize: int | None = None) -> Picture:
    """Decode an image in full, and encode it again if its short side is longer than `resize` pixels."""
    source_hash = image_id(data)
    if not data:
        return Picture("the file is empty", source_hash)
    try:
        return _decode(data, source_hash, resize)
    except MemoryError:
        return Picture("decoding it takes more memory than there is", source_hash)
    except Exception as error:  # decoders raise anything on damaged input, and one image must not end the run
        return Picture(_reason(error, data), source_hash)


def _decode(data: bytes, source_hash: str, resize: int | None) -> Picture:
    from PIL import Image

    from pipeline import pictures

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no error
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=picture_kinds.readable()) as image:
            kind = image.format or ""
            image.load()
            width, height = original = image.size
            if resize is not None and min(original) > resize:
                upright = pictures.upright(image)
                original = upright.size
                data, kind, (width, height) = _shrink(upright, resize)
            elif image.mode not in PLAIN:
                pictures.upright(image)  # what nobody can look at is an error of this row, now
    return Picture(None, source_hash, image_id(data), len(data), width, height, *original, kind, data)


def _shrink(upright: PIL.Image.Image, short_side: int) -> tuple[bytes, str, tuple[int, int]]:
    from PIL.Image import Resampling

    scale = short_side / min(upright.size)
    size = (max(short_side, round(upright.width * scale)), max(short_side, round(upright.height * scale)))
    small = upright.resize(size, Resampling.LANCZOS)
    sink = io.BytesIO()
    if upright.mode == "RGBA":
        small.save(sink, "PNG")
    else:
        small.save(sink, "JPEG", quality=JPEG_QUALITY)
    return sink.getvalue(), "PNG" if upright.mode == "RGBA" else "JPEG", size


def _reason(error: Exception, data: bytes) -> str:
    """A reason that is the same on every run: messages of the decoders may hold addresses of objects."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return picture_kinds.why_unreadable(data[: picture_kinds.HEAD])
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels: refused as a decompression bomb"
    return " ".join(str(error).split()) or type(error).__name__


def inspect_reference(reference: Reference, resize: int | None = None, keep: bool = False) -> Picture:
    """Read and inspect one image; `keep` returns the bytes to store as well."""
    try:
        data = reference.read()
    except OSError as error:
        return Picture(f"cannot be read: {error.strerror or error}")
    picture = inspect(data, resize)
    return picture if keep else replace(picture, data=None)


def _chunk_of(work: Callable[[Reference], Picture], references: Sequence[Reference]) -> list[Picture]:
    return [work(reference) for reference in references]


class Inspector:
    """Inspects many images in order, in `workers` spawned processes (in this one if `workers` is 1)."""

    def __init__(self, workers: int, work: Callable[[Reference], Picture]) -> None:
        """`work` is picklable: usually `partial(inspect_reference, resize=..., keep=...)`."""
        self.workers, self.work = workers, work
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._drop_pool()

    def __call__(self, references: Sequence[Reference]) -> Iterator[Picture]:
        """Yield a picture for every reference, in order."""
        if self.workers == 1 or (self._pool is None and len(references) < WORTH_A_POOL):
            yield from map(self.work, references)
            return
        chunks = [references[start : start + CHUNK] for start in range(0, len(references), CHUNK)]
        done = 0
        try:
            for pictures in self._ahead(chunks):
                done += 1
                yield from pictures
        except BrokenProcessPool:  # some image ended a worker: find it by going one by one
            self._drop_pool()
            for chunk in islice(chunks, done, None):
                yield from map(self._alone, chunk)

    def _ahead(self, chunks: Sequence[Sequence[Reference]]) -> Iterator[list[Picture]]:
        """The chunks in order, with a few more in hand than there are workers, so that memory holds no more.

        Not the pool's own `map`: that cancels its futures when it is left early, and the pool's thread fails on
        cancelled futures if a stop has ended the workers meanwhile (CPython 3.11).
        """
        pool, work = self._start_pool(), partial(_chunk_of, self.work)
        in_hand = deque(pool.submit(work, chunk) for chunk in chunks[: AHEAD * self.workers])
        for chunk in chunks[AHEAD * self.workers :]:
            yield in_hand.popleft().result()
            in_hand.append(pool.submit(work, chunk))
        while in_hand:
            yield in_hand.popleft().result()

    def _alone(self, reference: Reference) -> Picture:
        try:
            return self._start_pool().submit(self.work, reference).result()
        except BrokenProcessPool:
            self._drop_pool()
            return Picture("decoding it ended the process (a fault in the decoder, or out of memory)")

    def _start_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = process_pool(self.workers)
        return self._pool

    def _drop_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
