"""Settings that name perspectives: a name that no caption has does nothing, and may be a slip of the pen."""

from __future__ import annotations

from collections.abc import Iterable

from captioning.curate.config import CurateConfig


def warn_of_unknown(config: CurateConfig, perspectives: Iterable[str]) -> list[str]:
    """What to say of names that the captions do not have; the defaults name some that many corpora lack."""
    known = sorted(perspectives)
    return [
        f"curate.{setting} names {name!r}, which is no perspective of these captions ({', '.join(known)})"
        for setting, names in beyond_defaults(config).items()
        for name in names
        if name not in known
    ]


def beyond_defaults(config: CurateConfig) -> dict[str, tuple[str, ...]]:
    """The perspectives that a configuration names by itself, by setting."""
    defaults = _named(CurateConfig())
    return {
        setting: tuple(name for name in names if name not in defaults[setting])
        for setting, names in _named(config).items()
    }


def _named(config: CurateConfig) -> dict[str, tuple[str, ...]]:
    """The perspectives that each setting names."""
    return {
        "reject.quoting": config.reject.quoting,
        "language.skip": config.language.skip,
        "off_topic.perspectives": config.off_topic.perspectives,
        "off_topic.subject": (config.off_topic.subject,),
        "ground.perspectives": tuple(config.ground.perspectives),
        "support.not_judged": config.support.not_judged,
    }
