"""`holism evaluate --model … --benchmark …`: models and benchmarks that are named on the command line.

With `--model` no configuration is needed: models of others are then measured alone, in the workspace `workspace`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.run import Session
from pipeline.config import apply_overrides, load_yaml
from pipeline.errors import ConfigError

WORKSPACE = "workspace"  # where no configuration names one
_NAMED = re.compile(r"([^=:/]+)=(.+)")  # NAME=MODEL


def open_session(path: str, overrides: Sequence[str], models: Sequence[str], benchmarks: Sequence[str]) -> Session:
    """The configuration, with these models and benchmarks beside those that it names."""
    if not models and not benchmarks:
        return Session.open(path, overrides)
    if models and not Path(path).exists() and path == "holism.yaml":
        path = ""
        if not any(item.startswith("workspace=") for item in overrides):
            overrides = [*overrides, f"workspace={WORKSPACE}"]
    written = apply_overrides(load_yaml(path) if path else {}, overrides).get("evaluate")
    known = written if isinstance(written, dict) else {}  # anything else is refused below, by its key
    further = list(overrides)
    if models:
        further.append(f"evaluate.models={_as_yaml({**(known.get('models') or {}), **_by_name(models)})}")
    if benchmarks:
        further.append(f"evaluate.benchmarks={_as_yaml([*(known.get('benchmarks') or ()), *benchmarks])}")
    return Session.open(path, further)


def _as_yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _by_name(models: Sequence[str]) -> dict[str, str]:
    """`NAME=MODEL`, or a model that is called as its place: the folder, or open_clip's name and tag."""
    found: dict[str, str] = {}
    for text in models:
        named = _NAMED.fullmatch(text)
        name, place = named.groups() if named else (_short(text), text)
        if name in found:
            raise ConfigError(f"--model: two models are called {name!r}; call one otherwise: --model NAME={place}")
        found[name] = place
    return found


def _short(text: str) -> str:
    parts = [part.rstrip("/").rpartition("/")[2] for part in text.removeprefix("open_clip:").split(":")]
    return " ".join(part for part in parts if part)
