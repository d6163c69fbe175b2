"""`holism settings`: what every key of a configuration means, and docs/settings.md, which is made of the same."""

from __future__ import annotations

import difflib
import textwrap

from flows.config import HolismConfig
from pipeline.errors import ConfigError
from pipeline.settings import Group, Setting, groups

INTRODUCTION = """\
# Settings

Every key of a configuration, made by `holism settings --markdown > docs/settings.md`; `holism settings SECTION` shows
a part of it on the terminal. A **semantic** setting decides results: changing it makes the stage's result stale. An
*operational* one only decides how fast or where work is done, and makes nothing stale. `empty` is YAML's `null`. `[]`
stands for each item of a list, `NAME` for a name of your own, and `(KIND)` for a section that is read where `kind`
says so.
"""
WIDTH = 100


def settings(section: str | None = None) -> str:
    """The settings of a section, such as `caption.engine`, for the terminal; of all without one.

    Raises `ConfigError` where there is no such section or key.
    """
    lines = []
    for group in _chosen(section):
        lines.append(f"{group.key or 'top level'}: {group.meaning}")
        for setting in group.settings:
            lines.append(f"  {setting.key}: {setting.default}")
            told = f"{setting.meaning} ({setting.expected}; {_kind(setting)})"
            lines += textwrap.wrap(told, WIDTH, initial_indent="      ", subsequent_indent="      ")
        lines.append("")
    return "\n".join(lines).rstrip()


def markdown() -> str:
    """The page docs/settings.md."""
    lines = [INTRODUCTION]
    for group in groups(HolismConfig):
        lines += [f"## {f'`{group.key}`' if group.key else 'Top level'}", group.meaning, ""]
        lines += ["| key | default | expected | kind | meaning |", "| --- | --- | --- | --- | --- |"]
        for setting in group.settings:
            name = setting.key.removeprefix(f"{group.key}.")
            kind = _kind(setting).replace("semantic", "**semantic**").replace("operational", "*operational*")
            cells = [f"`{name}`", f"`{setting.default}`", setting.expected, kind, setting.meaning]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _chosen(section: str | None) -> list[Group]:
    listed = list(groups(HolismConfig))
    if section is None:
        return listed
    chosen = []
    for group in listed:
        wanted = tuple(setting for setting in group.settings if _within(setting.key, section))
        if wanted:
            chosen.append(Group(group.key, group.meaning, wanted))
    if not chosen:
        known = {part for group in listed for setting in group.settings for part in _sections_of(setting.key)}
        close = difflib.get_close_matches(section, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(HolismConfig.model_fields)}"
        raise ConfigError(f"there is no section or key {section!r}: {hint}")
    return chosen


def _within(key: str, section: str) -> bool:
    """Whether a key is this one or lies in this section, whatever it is written with: lists, names, kinds."""
    key = key.replace("[]", "").replace(".NAME", "")
    plain = key.split(" (")[0] + key.partition(")")[2] if " (" in key else key
    return plain == section or plain.startswith(f"{section}.") or key.startswith(f"{section}.") or key == section


def _sections_of(key: str) -> list[str]:
    names = key.replace("[]", "").split(".")
    return [".".join(names[: count + 1]) for count in range(len(names))]


def _kind(setting: Setting) -> str:
    if isinstance(setting.operational, tuple):
        return "semantic, options of memory and batches operational"
    return "operational" if setting.operational else "semantic"
