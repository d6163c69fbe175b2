"""Where the files of a data set lie: the first of several usual places, pictures by name, and what is said if not."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from evaluation.contents import MissingDataError, Picture
from evaluation.names import Names
from pipeline.errors import InputError
from pipeline.storage import Location


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


# A path inside the data set's folder, or several of which the first that is there counts.
Places = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


def below(root: Location, place: str) -> Location:
    """A place inside a folder; an absolute path or address stays what it is."""
    if "://" in place or place.startswith(("/", "~")):
        return Location.of(place)
    return root if place == "." else Location(f"{root}/{place}")


def find(root: Location, places: Sequence[str], what: str) -> Location:
    """The first place that is there. Raises `MissingDataError`, which says what is wanted where."""
    for place in places:
        if (found := below(root, place)).exists():
            return found
    wanted = " or ".join(str(below(root, place)) for place in places)
    raise MissingDataError(f"{what} is missing: expected it at {wanted}")


def find_all(root: Location, places: Sequence[str], what: str) -> list[Location]:
    """The files of the first place that is there; a place may be a pattern."""
    for place in places:
        at = below(root, place)
        if found := [at] if at.exists() else [file for file, is_folder in at.glob() if not is_folder]:
            return found
    return [find(root, places, what)]


def find_pictures(names: Sequence[str], folder: Location) -> tuple[tuple[Picture, ...], tuple[int, ...]]:
    """The pictures of these names below a folder, and their sizes in bytes.

    Raises `MissingDataError` if any is not there: of a part of a data set no figure is the usual one.
    """
    size: dict[str, int] = {}
    for parent in sorted({posixpath.dirname(name.replace("\\", "/")) for name in names}):
        at = below(folder, parent or ".")
        size |= {posixpath.join(parent, file.name): number for file, number in at.files()}
    present = list(size)
    known = Names(present)
    found = [known.find(name) for name in names]
    if absent := [name for name, place in zip(names, found, strict=True) if place is None]:
        raise MissingDataError(
            f"{len(absent):,} of {len(names):,} pictures are missing in {folder}, the first is {absent[0]!r}"
        )
    chosen = [present[place] for place in found if place is not None]
    return tuple(folder / name for name in chosen), tuple(size[name] for name in chosen)


def no_text(where: Location | str, file: str) -> InputError:
    """The error of a picture without a caption."""
    return InputError(f"{where}: the picture {file!r} has no caption; each needs at least one")
