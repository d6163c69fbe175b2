"""What the documents name is there: what they link to, and the files, commands, options and keys in their text."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from flows.cli import _parser
from flows.config import HolismConfig
from flows.settings import settings
from pipeline.config import build

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*GUIDES, *sorted((ROOT / "benchmarks").glob("*.md")), ROOT / "captioning/demo_vlm/weights/README.md"]
PACKAGES = "captioning|training|evaluation|pipeline|flows|benchmarks|tests|configs|docs"
SECTIONS = "ingest|caption|curate|train|evaluate|ray|flow"


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


documents = pytest.mark.parametrize("path", DOCUMENTS, ids=_named)


@documents
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def _anchors(path: Path) -> set[str]:
    """Headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_guide_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [_named(path) for path in GUIDES[1:] if f"({_named(path)}" not in readme] == []


@documents
def test_files_and_modules_in_the_text_exist(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(rf"`((?:{PACKAGES})/[\w./-]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), name
    for module in re.findall(rf"python -m ((?:{PACKAGES})[\w.]*)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


@documents
def test_commands_and_options_in_the_text_exist(path: Path) -> None:
    commands = _commands(_parser())
    for code in _code(path.read_text()):
        for command, rest in re.findall(r"\bholism ([a-z]+)\b([^\n#|]*)", code):
            assert command in commands, code
            options = set(re.findall(r"(?<![\w-])--[a-z-]+", rest))
            assert options <= commands[command], (code, options - commands[command])


def _code(text: str) -> list[str]:
    """Code spans, and indented or fenced lines whose first word is the command."""
    spans = [span for span in re.findall(r"`([^`\n]+)`", text) if re.match(r"(\S*/)?holism [a-z]", span)]
    return spans + re.findall(r"^ {4}(?:\S*/)?(holism [a-z].*)$", text, re.MULTILINE)


def _commands(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Each command's options, those of what stands below it included."""
    found = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                further = set().union(*_commands(command).values())
                found[name] = further.union(*(one.option_strings for one in command._actions))
    return found


guides = pytest.mark.parametrize("path", GUIDES, ids=_named)


@guides
def test_keys_in_the_text_exist(path: Path) -> None:
    for key in re.findall(rf"`((?:{SECTIONS})(?:\.[a-z_]+)+)(?=[`:=])", path.read_text()):
        assert key.rpartition(".")[2] in settings(key)  # which refuses what is no key


@guides
def test_configurations_in_the_text_are_valid(path: Path) -> None:
    least = {"workspace": "workspace", "ingest": {"source": {"kind": "folder", "path": "photos"}}}
    for block in re.findall(rf"^ {{4}}(?:{SECTIONS}):.*\n(?:(?: {{4}}.*)?\n)*", path.read_text(), re.MULTILINE):
        written = yaml.safe_load(textwrap.dedent(block))
        config = build(HolismConfig, {**least, **written}, source=block)
        assert set(written) <= config.model_fields_set, block
