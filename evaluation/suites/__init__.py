"""Suites: named evaluations, as data. A suite says in what form a data set lies, which split, and which protocol.

The usual ones are the YAML files of this folder; anybody's own is a YAML file of the same keys. Their form is a layout
(`evaluation.layouts`).
"""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import Field, field_validator

from evaluation.contents import ALL_CAPTIONS, caption_limit
from evaluation.layouts import Layout
from pipeline import plain_yaml
from pipeline.config import Section, build
from pipeline.errors import ConfigError
from pipeline.storage import Location

FOLDER = Path(__file__).parent
YAML = (".yaml", ".yml")


class Suite(Section):
    """What is measured on, and how: `name` stands in results, `protocol` begins the id of every figure."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the data set with its split")
    about: str = Field("", description="what it is, in a sentence")
    source: str = Field("", description="where its files are had")
    licence: str = Field("", description="of its pictures and texts")
    split: str = Field("test", description="the split that is read")
    train: str = Field("", description="the split that probes are fitted on, if there is one")
    relevance: str = Field("", description="how it was decided what a text is true for")
    captions: tuple[str, ...] = Field(
        (ALL_CAPTIONS,),
        min_length=1,
        description="all_captions, one_caption (the first of each image), first_N_captions",
    )
    root: str | None = Field(
        None, description="folder of its files, from the YAML file on, where nobody gives another"
    )
    layout: Layout = Field(description="in what form the files lie")

    @field_validator("captions")
    @classmethod
    def _known(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        for protocol in captions:
            caption_limit(protocol)
        return captions


def names() -> list[str]:
    """The suites that come with Holism."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def shipped(name: str) -> Suite:
    """A suite that comes with Holism. Raises `ConfigError` if there is none of that name."""
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names())}"
        raise ConfigError(f"there is no suite {name!r}: {hint}")
    return _read(Location.of(FOLDER / f"{name}.yaml"))


def find(name: str) -> tuple[Suite, Location | None]:
    """A suite by its name or the path of its YAML, and the folder that its `root` means, if it names one."""
    if not name.endswith(YAML):
        return shipped(name), None
    location = Location.of(name)
    if not location.exists():
        raise ConfigError(f"there is no suite {location}; expected a YAML file, or one of {', '.join(names())}")
    suite = _read(location)
    if suite.root is None:
        return suite, None
    outside = "://" in suite.root or suite.root.startswith(("/", "~"))
    return suite, Location.of(suite.root if outside else f"{location.parent}/{suite.root}")


def _read(location: Location) -> Suite:
    data = plain_yaml.parse(location.read(), str(location))
    if not isinstance(data, dict):
        raise ConfigError(f"{location} holds a {type(data).__name__}, expected the keys of a suite")
    return build(Suite, data, source=str(location))
