"""Classes of pictures and the sentences that their names are put into; sets of both by name.

`imagenet`, `openai_imagenet` and `simple_imagenet` are open_clip's own lists: class names and templates as everybody
uses them. Two of ImageNet's names occur twice ("crane", "maillot"), so its labels go by number.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from pipeline import identity
from pipeline.config import Section, build
from pipeline.errors import ConfigError

CLASS_SETS = {"imagenet": "IMAGENET_CLASSNAMES"}  # by name: what open_clip calls them
TEMPLATE_SETS = {"openai_imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple_imagenet": "SIMPLE_IMAGENET_TEMPLATES"}
HOLE = "{}"
DIGITS = 8  # of a digest in a protocol id

# Texts, or the name of a set of them.
ClassNames = Annotated[
    tuple[str, ...], BeforeValidator(lambda found: class_names(found) if isinstance(found, str) else found)
]
Templates = Annotated[
    tuple[str, ...], BeforeValidator(lambda found: templates(found) if isinstance(found, str) else found)
]


class Classes(Section):
    """Zero-shot classification of one attribute: its classes and the sentences their names are put into."""

    classes: ClassNames = Field(min_length=2)
    templates: Templates = Field(("a photo of a {}",), min_length=1)

    @field_validator("classes", mode="before")
    @classmethod
    def _are_texts(cls, classes: object) -> object:
        if isinstance(classes, list) and (strange := [name for name in classes if not isinstance(name, str)]):
            raise ValueError(f"{strange[0]!r} is no text; write names of classes in quotes")
        return classes

    @field_validator("classes")
    @classmethod
    def _have_names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.strip() for name in classes):
            raise ValueError("a class has no name")
        return tuple(name.strip() for name in classes)

    @field_validator("templates")
    @classmethod
    def _have_a_hole(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if without := [template for template in templates if HOLE not in template]:
            raise ValueError(f"template {without[0]!r} has no {{}} for the class name")
        return templates

    @property
    def protocol(self) -> str:
        """What decides a zero-shot figure: how many templates, and which, and with which names of classes."""
        digest = identity.digest([list(self.classes), list(self.templates)])[:DIGITS]
        return f"zero_shot_{len(self.templates)}_templates_{digest}"

    def prompts(self) -> list[list[str]]:
        """For each class its name in every template."""
        return [[template.replace(HOLE, name) for template in self.templates] for name in self.classes]


def described(classes: Sequence[str], templates: Sequence[str], source: str) -> Classes:
    """Classes that lie in somebody's files. Raises `ConfigError`, beginning with `source`, for what are none."""
    return build(Classes, {"classes": list(classes), "templates": list(templates)}, source=source)


def class_names(known_as: str) -> tuple[str, ...]:
    """The class names of a set. Raises `ConfigError` if there is none of that name."""
    return tuple(_open_clip(known_as, CLASS_SETS, "classes"))


def templates(known_as: str) -> tuple[str, ...]:
    """The templates of a set, with {} for the class name. Raises `ConfigError` if there is none of that name."""
    return tuple(str(template(HOLE)) for template in _open_clip(known_as, TEMPLATE_SETS, "templates"))


def _open_clip(known_as: str, sets: dict[str, str], what: str) -> Sequence[Any]:
    if known_as not in sets:
        raise ConfigError(f"there is no set of {what} {known_as!r}; expected a list, or one of {', '.join(sets)}")
    found: Sequence[Any] = _metadata()[sets[known_as]]
    return found


@cache
def _metadata() -> dict[str, Any]:
    """open_clip's lists, read from their file: importing open_clip would import torch, for a few names."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ConfigError("sets of classes and templates come with open_clip, which is not installed")
    return runpy.run_path(str(Path(spec.origin).with_name("zero_shot_metadata.py")))
