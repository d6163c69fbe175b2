"""Weights that open_clip knows by a tag, and what a recipe must have in common with them.

A state dict does not say which GELU it was trained with, nor how its images were normalised. open_clip's list of tags
does, and a recipe that differs would train from a start that is much worse than it looks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from pipeline.errors import ConfigError
from training.config import RunConfig


def described(tag: str, recipe: RunConfig) -> dict[str, Any]:
    """What open_clip says of the weights.

    Raises ConfigError where the tag is not one of the recipe's model, or where model or normalisation are not those
    it was trained with.
    """
    name = recipe.model if isinstance(recipe.model, str) else None
    settings = open_clip.get_pretrained_cfg(name, tag) if name else None
    if name is None or not settings:
        known = open_clip.list_pretrained_tags_by_model(name) if name else []
        raise ConfigError(
            f"train.warm_start: open_clip has no weights {tag!r} for train.model {name or 'spelled out'}; "
            f"it has {', '.join(known) or 'none: name the model as open_clip does, or give a file'}"
        )
    _require_same_gelu(tag, name, settings)
    require_same_normalisation(f"the weights {tag!r}", settings, recipe)
    return dict(settings)


def fetch(tag: str, recipe: RunConfig) -> Path:
    """The file with the weights, from open_clip's cache or from where it has them.

    Raises ConfigError where the recipe does not go with them (`described`), or where they cannot be fetched.
    """
    settings = described(tag, recipe)
    try:
        return Path(open_clip.download_pretrained(settings))
    except Exception as error:  # of whichever client fetches it
        raise ConfigError(
            f"train.warm_start: the weights {tag!r} could not be fetched ({first_line(error)}); download "
            "them where there is a network and name the file"
        ) from error


def require_same_normalisation(weights: str, settings: Mapping[str, Any], recipe: RunConfig) -> None:
    """Raises ConfigError where `settings` has another mean or standard deviation of colours than the recipe."""
    for field in ("mean", "std"):
        value = tuple(settings.get(field) or ())
        if value and value != getattr(recipe, f"image_{field}"):
            raise ConfigError(
                f"train.warm_start: {weights} were trained with another normalisation; set train.image_{field} to "
                f"{list(value)}"
            )


def first_line(error: Exception) -> str:
    """What an error says; its type, where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_same_gelu(tag: str, name: str, settings: Mapping[str, Any]) -> None:
    config = open_clip.get_model_config(name) or {}
    if bool(settings.get("quick_gelu")) != bool(config.get("quick_gelu")):
        other = f"{name}-quickgelu" if settings.get("quick_gelu") else name.removesuffix("-quickgelu")
        raise ConfigError(
            f"train.warm_start: the weights {tag!r} were trained with another GELU than train.model {name} has; "
            f"set train.model to {other}"
        )
