"""The shape of the project: imports point one way, what decides is light, files stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "pipeline": set(),
    "captioning": {"pipeline"},
    "training": {"pipeline"},
    "evaluation": {"pipeline", "training.load"},
    "flows": {"pipeline", "captioning", "training", "evaluation"},
}
HEAVY = ("torch", "torchvision", "ray", "vllm", "prefect", "open_clip", "transformers", "matplotlib", "duckdb")
OPTIONAL = {"ray", "prefect", "vllm"}  # of these, training and evaluation do without on a GPU node
MAX_LINES = 400
SOURCES = [path.relative_to(ROOT) for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, at any depth; of a package imported whole, what is used of it."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text(encoding="utf8"))))
    used = [
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = [
                    f"{alias.name}.{attribute}" for name, attribute in used if name == (alias.asname or alias.name)
                ]
                yield from parts or [alias.name]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(name: str, package: str) -> bool:
    top = name.split(".")[0]
    if top not in MAY_IMPORT or top == package:
        return True
    return any(name == granted or name.startswith(f"{granted}.") for granted in MAY_IMPORT[package])


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    wrong = [name for name in imports(path) if not allowed(name, path.parts[0])]
    assert not wrong, (
        f"{path} imports {wrong}; {path.parts[0]} may import {sorted(MAY_IMPORT[path.parts[0]]) or 'none of us'}"
    )


@pytest.mark.parametrize(
    ("name", "package", "expected"),
    [
        ("pipeline.storage", "captioning", True),
        ("captioning.store", "pipeline", False),
        ("training.load.load", "evaluation", True),
        ("training.loader", "evaluation", False),
        ("training.trainer", "captioning", False),
        ("torch.nn", "pipeline", True),
        ("flows.cli", "training", False),
    ],
)
def test_the_rule_itself(name: str, package: str, expected: bool) -> None:
    assert allowed(name, package) == expected


def loaded_by(modules: list[str]) -> set[str]:
    """Which heavy libraries a fresh process has after importing modules."""
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_what_decides_whether_there_is_work_loads_nothing_heavy() -> None:
    light = [module_name(path) for path in SOURCES if path.name in ("config.py", "stage.py", "stages.py")]
    assert {"pipeline.config", "pipeline.ingest.config", "pipeline.ingest.stage", "pipeline.stage"} <= set(light)
    assert loaded_by(["pipeline", *light]) == set()


def test_the_probe_sees_what_is_loaded() -> None:
    assert "duckdb" in loaded_by(["duckdb"])


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] in ("training", "evaluation")], ids=str)
def test_training_and_evaluation_do_without_the_orchestration_stack(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf8"))
    names = [
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    assert not [name for name in names if name.split(".")[0] in OPTIONAL]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_are_short_and_say_what_they_are_for(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf8")
    assert text.count("\n") <= MAX_LINES
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
