"""Typed configuration: frozen sections, YAML files, `a.b=c` overrides and messages that name the key.

Every stage owns a `Section`. What a field does to results decides its kind: a field marked `operational`
(workers, batch sizes of inference, addresses) never enters a fingerprint, every other field does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from pipeline import plain_yaml
from pipeline.errors import ConfigError
from pipeline.presentable import holds_secret
from pipeline.problems import explained, shown

SectionT = TypeVar("SectionT", bound="Section")
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch both take


class Section(BaseModel):
    """A frozen group of settings that knows no keys but its own; its numbers are finite.

    `moved` says what keys of earlier versions are called now, with their sections.
    """

    moved: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    def short(self) -> Any:
        """The section as a user would write it, without what is default anyway."""
        return self.model_dump(mode="json", exclude_defaults=True)


def operational(default: Any = ..., *, default_factory: Any = None, **constraints: Any) -> Any:
    """Declare a field that changes how fast or where work is done, and never what comes out of it."""
    extra: dict[str, Any] = {"operational": True}
    if default_factory is not None:
        return Field(default_factory=default_factory, json_schema_extra=extra, **constraints)
    return Field(default, json_schema_extra=extra, **constraints)


def partly_operational(operational_keys: Iterable[str], **constraints: Any) -> Any:
    """Declare a mapping of options of another program: those that are named are operational, all others are not.

    Without any of the others it is no part of what decides results, as if the field were not there.
    """
    return Field(default_factory=dict, json_schema_extra={"operational": [*sorted(operational_keys)]}, **constraints)


def added(default: Any, **constraints: Any) -> Any:
    """Declare a field that came later: at its default it is no part of what decides results, as if it were not there.

    So what was made before the field existed (downloads above all) is used on.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def semantic(value: Any) -> Any:
    """The part of a section that decides its results, as plain JSON data."""
    if isinstance(value, BaseModel):
        return {
            name: part
            for name, field in type(value).model_fields.items()
            if (part := _semantic_field(field, getattr(value, name))) is not _NOTHING
        }
    if isinstance(value, Mapping):
        return {str(key): semantic(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [semantic(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


_NOTHING = object()


def _semantic_field(field: FieldInfo, value: Any) -> Any:
    """What of a field decides results; `_NOTHING` where none of it does."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if extra.get("added") and value == field.default:
        return _NOTHING
    keys = extra.get("operational", False)
    if isinstance(keys, list):
        rest = {key: item for key, item in value.items() if key not in keys}
        return semantic(rest) if rest else _NOTHING
    return _NOTHING if keys else semantic(value)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping; an unreadable or malformed file is a `ConfigError` that names it."""
    try:
        with open(path, "rb") as file:
            content = file.read(plain_yaml.MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', 0) or error}") from error
    data = plain_yaml.parse(content, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, expected a mapping of keys to values")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `data` with each `a.b=value` set; values are read as YAML."""
    result = _copy(data)
    for override in overrides:
        key, separator, raw = override.partition("=")
        names = key.strip().split(".")
        if not separator or not all(names) or len(names) > plain_yaml.MAX_DEPTH:
            raise ConfigError(f"override {shown(override)} is not of the form section.key=value")
        value = plain_yaml.parse(raw, f"the value of override {shown(override)}")
        node = result
        for name in names[:-1]:
            child = node.get(name)
            if child is None:
                child = node[name] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"override {shown(override)}: {name!r} is a value, not a section")
            node = child
        node[names[-1]] = value
    return result


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """Deep-merge two mappings; `update` wins, lists are replaced whole."""
    result = _copy(base)
    for key, value in update.items():
        current = result.get(key)
        result[key] = merge(current, value) if isinstance(current, dict) and isinstance(value, Mapping) else value
    return result


def build(model: type[SectionT], data: Mapping[str, Any], source: str = "configuration") -> SectionT:
    """Validate `data` as `model`; every problem is named with its key, what was found and what was expected."""
    _refuse_secrets(data, source)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = explained(model, data, error)
        head = f"{source}: " if len(problems) == 1 else f"{source} has {len(problems)} problems:\n  "
        raise ConfigError(head + "\n  ".join(problems)) from error


def _refuse_secrets(data: Any, source: str, key: str = "") -> None:
    """Settings are stored with every result and shown to everybody: no address among them may carry a secret."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            _refuse_secrets(value, source, f"{key}.{name}" if key else str(name))
    elif isinstance(data, (list, tuple)):
        for value in data:
            _refuse_secrets(value, source, key)
    elif isinstance(data, str) and holds_secret(data):
        raise ConfigError(
            f"{source}: '{key}' is {data!r}: an address in a configuration holds no user name, password or key; "
            "stores take theirs from the environment or a credentials file (AWS_ACCESS_KEY_ID, AWS_PROFILE, "
            "GOOGLE_APPLICATION_CREDENTIALS), a captioning server from the variable that api_key_env names"
        )


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}
