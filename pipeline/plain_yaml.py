"""YAML as plain data, read in bounded time and memory: mappings, lists, texts and numbers, and nothing else.

A file is looked through event by event before anything is built of it. What is nested too deep, refers to itself, or
grows without bound through its anchors is refused there, when it has cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 8 * 2**20
MAX_DEPTH = 50
MAX_VALUES = 500_000  # anchors written out; 5 s and 200 MB
_STANDARD = "tag:yaml.org,2002:"
_TAGS = {None, "!", *(_STANDARD + name for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge"))}
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as quick


class _Loader(_Base):
    """YAML's core types alone: a date is text, as in JSON."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _STANDARD + "timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    anchor: str | None
    before: int  # values that came before it
    is_mapping: bool
    children: int = 0
    keys: set[str] = field(default_factory=set)


def parse(data: bytes | str, source: str) -> Any:
    """The one document in `data`. Raises `ConfigError`, beginning with `source`, for whatever is not plain data."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{source} is larger than {MAX_BYTES >> 20} MB; expected a YAML file of settings")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not UTF-8 text (at byte {error.start}); save it as UTF-8") from error
    try:
        _look_through(text, source)
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # of int(), which refuses thousands of digits
        raise ConfigError(f"{source} holds a number that cannot be read; expected one of at most 64 bits") from error
    for where, problem in _not_plain(value):
        raise ConfigError(f"{source}: '{where}' {problem}" if where else f"{source} {problem}")
    return value


def _look_through(text: str, source: str) -> None:
    """Raise `ConfigError` for what would take too long to build, or would lose something."""
    sizes: dict[str, int] = {}  # by anchor: how many values stand for it
    nodes: list[_Open] = []
    values = 0
    events: Iterator[Any] = yaml.parse(text, Loader=_Loader)  # each kind has fields of its own
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionEndEvent):
            ended = nodes.pop()
            if ended.anchor is not None:
                sizes[ended.anchor] = values - ended.before
            continue
        tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
        if not isinstance(event, yaml.NodeEvent):
            continue
        if tag not in _TAGS:
            raise ConfigError(f"{source} uses the tag {tag!r} in line {line}; expected plain values")
        if nodes and (key := _seen_before(nodes[-1], event)) is not None:
            raise ConfigError(f"{source} has the key {key!r} twice, the second time in line {line}; remove one")
        if isinstance(event, yaml.AliasEvent):
            if any(node.anchor == anchor for node in nodes):
                raise ConfigError(f"{source}: the anchor &{anchor} holds itself (*{anchor} in line {line})")
            values += sizes.get(str(anchor), 0)
        else:
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                nodes.append(_Open(anchor, values - 1, isinstance(event, yaml.MappingStartEvent)))
            elif anchor is not None:
                sizes[anchor] = 1
        if len(nodes) > MAX_DEPTH:
            raise ConfigError(f"{source} is nested more than {MAX_DEPTH} levels deep (line {line})")
        if values > MAX_VALUES:
            raise ConfigError(f"{source} holds more than {MAX_VALUES:,} values with its anchors written out")


def _seen_before(parent: _Open, event: Any) -> str | None:
    """Note a node inside `parent`; a key that is there already would silently replace what was said before."""
    is_key = parent.is_mapping and parent.children % 2 == 0
    parent.children += 1
    if not is_key or not isinstance(event, yaml.ScalarEvent) or event.value == "<<":
        return None
    key = str(event.value)
    if key in parent.keys:
        return key
    parent.keys.add(key)
    return None


def _not_plain(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """What JSON could not hold, each with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield where, f"has the key {str(key)[:40]}, which YAML does not take for text; put it in quotes"
            yield from _not_plain(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_plain(item, f"{where}.{index}" if where else str(index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, f"is {value}, expected a finite number"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield where, "is a number of more than 64 bits"
