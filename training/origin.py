"""What a checkpoint came from: recipe, data and code. A run goes on from its own recipe and data, and no other."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipeline.config import semantic
from pipeline.errors import StoreError
from pipeline.identity import digest
from training.config import RunConfig
from training.weights import weights_name

SHOWN = 6  # differences in a message


def origin(config: RunConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """As plain JSON data. `data` says which samples a run is trained on."""
    recipe = {**semantic(config), "warm_start": weights_name(config.warm_start)}
    return {"recipe": recipe, "data": dict(data), "code": code()}


@cache
def code() -> dict[str, str]:
    """The versions at work, and a digest of this package's sources, which tells what a version does not."""
    try:
        version = metadata.version("holism")
    except metadata.PackageNotFoundError:
        version = "not installed"
    here = Path(__file__).parent
    sources = {str(file.relative_to(here)): file.read_text("utf8") for file in sorted(here.rglob("*.py"))}
    return {"holism": version, "training": digest(sources)[:12], "torch": str(torch.__version__)}


def require_same(theirs: Mapping[str, Any], wanted: Mapping[str, Any], place: object) -> None:
    """Raises StoreError, with the differences named, where recipe or data are others."""
    differences = [
        f"{kind} {key} is {there!r} there and {here!r} here"
        for kind in ("recipe", "data")
        for key, there, here in _differences(theirs.get(kind, {}), wanted[kind])
    ]
    if differences:
        more = f", and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise StoreError(
            f"the checkpoint in {place} is of another run: {'; '.join(differences[:SHOWN])}{more}; move or delete "
            "that folder, or set the recipe back"
        )


def other_code(theirs: Mapping[str, Any]) -> str | None:
    """A sentence where a checkpoint was written by other code, which may go on with it all the same."""
    differences = [f"{key} {there} (now {here})" for key, there, here in _differences(theirs.get("code", {}), code())]
    return f"the checkpoint was written with {', '.join(differences)}" if differences else None


def _differences(theirs: Any, wanted: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, there, here) of whatever is not the same."""
    if isinstance(theirs, Mapping) and isinstance(wanted, Mapping):
        for name in [*wanted, *(name for name in theirs if name not in wanted)]:
            yield from _differences(theirs.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif theirs != wanted:
        yield key, theirs, wanted
