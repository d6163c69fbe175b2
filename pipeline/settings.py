"""The settings of a configuration, found in its sections: every key with its meaning, its default and its kind."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config import Section

NAMES = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "anything"}
EMPTY = "empty"
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Setting:
    """One key; `operational` is True, False, or the names of the options that are operational."""

    key: str
    meaning: str
    default: str
    expected: str
    operational: bool | tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The keys of one section, and what the section is for."""

    key: str
    meaning: str
    settings: tuple[Setting, ...]


def groups(
    model: type[Section], key: str = "", default: Section | None = None, *, operational: bool = False
) -> Iterator[Group]:
    """A section and the sections in it, in the order in which they are declared.

    `NAME` stands for a name of the user's own, `[]` for an item of a list, and `(KIND)` for a section that is only
    read where its `kind` says so. `default` is the section as it is by default, where it has values of its own then.
    """
    settings, inner = list[Setting](), list[Group]()
    for name, field in model.model_fields.items():
        path = f"{key}.{name}" if key else name
        keys = (field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}).get("operational", False)
        kind = operational or (tuple(map(str, keys)) if isinstance(keys, list) else bool(keys))
        value = getattr(default, name) if default and name in default.model_fields_set else _value(field)
        if not _is_section(field.annotation):
            meaning = _line(field.description) or ("names this kind of section" if name == "kind" else "")
            settings.append(Setting(path, meaning, _default(field, value), _expected(field), kind))
        for place, section in _sections(field.annotation, path):
            its = value if type(value) is section else None
            inner += groups(section, place, its, operational=operational or bool(keys))
    if settings:
        yield Group(key, _line(inspect.getdoc(model)), tuple(settings))
    yield from inner


def _sections(annotation: Any, path: str) -> Iterator[tuple[str, type[Section]]]:
    """The sections that a field holds, with their keys."""
    arguments, origin = get_args(annotation), get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield path, annotation
    elif origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not types.NoneType]
        for member in members:
            kind = member.model_fields.get("kind") if len(members) > 1 and hasattr(member, "model_fields") else None
            yield from _sections(member, f"{path} ({kind.default})" if kind else path)
    elif origin is tuple or origin is list:
        yield from _sections(arguments[0], f"{path}[]")
    elif origin is dict:
        yield from _sections(arguments[1], f"{path}.NAME")
    elif arguments:
        yield from _sections(arguments[0], path)


def _is_section(annotation: Any) -> bool:
    """Whether a field is nothing but a section, or one of several: then its keys say all."""
    if isinstance(annotation, type):
        return issubclass(annotation, Section)
    arguments = get_args(annotation)
    union = get_origin(annotation) in (Union, types.UnionType)
    return union and all(isinstance(member, type) and issubclass(member, Section) for member in arguments)


def _value(field: FieldInfo) -> Any:
    """A field's own default; `PydanticUndefined` where there is none."""
    return field.get_default(call_default_factory=True, validated_data={})


def _default(field: FieldInfo, value: Any) -> str:
    if isinstance(field.default_factory, types.FunctionType):  # it depends on the machine: its docstring says on what
        return _line(field.default_factory.__doc__) or "depends on the machine"
    return "required" if value is PydanticUndefined else _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return EMPTY
    return (
        yaml.safe_dump(_plain(value), default_flow_style=True, width=1000, sort_keys=False)
        .removesuffix("\n...\n")
        .strip()
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.short()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _expected(field: FieldInfo) -> str:
    """The type of a field and its bounds, in words."""
    limits = [
        (words, getattr(rule, name)) for rule in _rules(field) for name, words in BOUNDS.items() if hasattr(rule, name)
    ]
    bounds = [f"{words} {limit:,}" if isinstance(limit, int) else f"{words} {limit:g}" for words, limit in limits]
    return ", ".join([_type(field.annotation), *bounds])


def _rules(field: FieldInfo) -> list[Any]:
    """The constraints of a field, those of a type that is annotated with its own included."""
    rules = list(field.metadata)
    for rule in [*rules]:
        rules += getattr(rule, "metadata", [])
    return rules


def _type(annotation: Any) -> str:
    arguments, origin = get_args(annotation), get_origin(annotation)
    if annotation in NAMES:
        return NAMES[annotation]
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(member) for member in arguments if member is not types.NoneType))
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(arguments)} {_type(arguments[0])}s"
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}s"
    if origin is dict:
        return f"mapping of names to {_type(arguments[1])}"
    if arguments:  # annotated
        return _type(arguments[0])
    return "section" if isinstance(annotation, type) and issubclass(annotation, Section) else str(annotation)


def _line(text: str | None) -> str:
    """A docstring or description in one line."""
    return " ".join((text or "").split())
