"""What is wrong with a configuration, in our words: the key, what was found there and what was expected.

pydantic finds it. Where a value could be of several types it names a problem for each, which are one here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

MAX_SHOWN = 80  # characters of a value in a message
MAPPING, LIST = "a mapping of keys to values", "a list"
# What was expected, by the first word of the name that pydantic has for a problem.
TYPES = {
    "bool": "true or false",
    "dict": MAPPING,
    "finite": "a finite number",
    "float": "a number",
    "frozen": LIST,
    "int": "a whole number",
    "list": LIST,
    "mapping": MAPPING,
    "model": MAPPING,
    "set": LIST,
    "tuple": LIST,
}
BOUNDS = {
    "greater_than": ("gt", "a number above"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number below"),
    "less_than_equal": ("le", "a number of at most"),
}


def explained(model: type[BaseModel], data: Any, error: ValidationError) -> list[str]:
    """A sentence for each key that something is wrong with."""
    said = list[str]()
    expected: dict[str, list[str]] = {}
    shown_at: dict[str, int] = {}
    problems = error.errors()
    inside = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in inside:
            continue  # only items that are right were counted
        keys = _keys(model, data, problem)
        key, what = ".".join(keys), _expected(problem)
        if what is None:
            said.append(_explain(model, keys, problem))
            continue
        if key not in expected:
            shown_at[key] = len(said)
            said.append("")
        expected.setdefault(key, []).append(what)
        told = " or ".join(dict.fromkeys(expected[key]))
        said[shown_at[key]] = f"'{key}' is {shown(problem['input'])}: expected {told}"
    return said


def _expected(problem: Any) -> str | None:
    """What a value should have been; None where that is not all there is to say."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        limit = context[name]
        return f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}"
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in ("too_long", "too_short"):
        most = kind == "too_long"
        return f"a list of at {'most' if most else 'least'} {context['max_length' if most else 'min_length']} items"
    if kind == "string_too_short" and context["min_length"] == 1:
        return "text that is not empty"
    if kind == "string_pattern_mismatch":
        return f"text of the form {context['pattern']}"
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        return f"a list of at least {problem['loc'][-1] + 1} items"
    if kind in ("string_type", "string_unicode"):
        return "text"
    first, _, rest = kind.partition("_")
    return TYPES.get(first) if rest else None


def _explain(model: type[BaseModel], keys: Sequence[str], problem: Any) -> str:
    """The sentence of a problem that is no matter of types and bounds."""
    key, kind = ".".join(keys), problem["type"]
    if kind == "missing":
        return f"'{key}' is missing: add it to the configuration"
    if kind == "extra_forbidden":
        sections = _sections_at(model, problem["loc"][:-1])
        if now := next((one.moved[keys[-1]] for one in sections if keys[-1] in one.moved), None):
            return f"'{key}' is called '{now}' now: rename it"
        known = sorted({name for section in sections for name in section.model_fields})
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known) or 'none'}"
        return f"unknown key '{key}': {hint}"
    if kind == "union_tag_not_found":
        return f"'{key}.{_discriminator(problem)}' is missing: add it to the configuration"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        return f"'{key}.{_discriminator(problem)}' is {context['tag']!r}: expected one of {context['expected_tags']}"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}".replace("input should be", "expected")
    if isinstance(problem["input"], Mapping):  # a rule about a whole section: its message says what is wrong
        return f"'{key}': {message}" if key else message
    return f"'{key}' is {shown(problem['input'])}: {message}"


def shown(value: Any) -> str:
    """A value in a message; a long one is cut."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _discriminator(problem: Any) -> str:
    return str(problem["ctx"]["discriminator"]).strip("'")


def _keys(model: type[BaseModel], data: Any, problem: Any) -> list[str]:
    """The keys of a problem as the user wrote them: pydantic puts the tags of unions in, and names of types after."""
    location = problem["loc"]
    names_key = problem["type"] in ("missing", "extra_forbidden")
    if problem["type"] == "missing" and isinstance(location[-1], int):  # an item of a list that is too short
        location, names_key = location[:-1], False
    keys = _without_tags(model, location)
    written, node = list[str](), data
    for position, key in enumerate(keys):
        inside, node = _step(node, key)
        if inside or (names_key and position == len(keys) - 1):
            written.append(key)
    return written


def _step(node: Any, key: str) -> tuple[bool, Any]:
    """Whether a key leads into what the user wrote, and where to; if not, one stays where one is."""
    if isinstance(node, Mapping):
        match = next((name for name in node if str(name) == key), None)
        return (match is not None), (node[match] if match is not None else node)
    if isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node):
        return True, node[int(key)]
    return False, node


def _without_tags(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    models: list[type[BaseModel]] = [model]
    keys = []
    for position, part in enumerate(location):
        fields = [current.model_fields[str(part)] for current in models if str(part) in current.model_fields]
        last, tags = position == len(location) - 1, [_tag(current) for current in models] if len(models) > 1 else []
        if fields or last or part not in tags:
            keys.append(str(part))
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return keys


def _tag(model: type[BaseModel]) -> Any:
    """The value of a union member's `kind`."""
    field = model.model_fields.get("kind")
    return field.default if field is not None else None


def _sections_at(model: type[BaseModel], location: Sequence[Any]) -> list[Any]:
    """The section that `location` leads to, or all members of a union."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        following: list[type[BaseModel]] = []
        for current in models:
            field = current.model_fields.get(str(part))
            following += _models_in(field.annotation) if field is not None else []
        models = following or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for argument in getattr(annotation, "__args__", ()) for inner in _models_in(argument)]
