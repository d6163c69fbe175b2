"""What the study trains: rows.yaml read as recipes, and the worlds whose pictures they are trained and measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

from pipeline.config import load_yaml, merge
from pipeline.errors import HolismError

HERE = Path(__file__).parent
WIDTH = 64  # numbers in a vector, unless a variant says otherwise
CLIP = "clip"  # what a row starts from: the myopic CLIP of its world and width,
OTHER_STARTS = {"tower": "captioning/demo_vlm/weights", "nothing": None}  # or these weights


@dataclass(frozen=True)
class World:
    """Pictures in splits that share none: those that rows are scored on, and captions of those for training."""

    splits: Mapping[str, tuple[str, ...]]  # benchmark folders, by what they are for
    tables: Mapping[str, str]  # folders or files of captions, by who wrote them


WORLDS = {
    "rendered": World(
        {"develop": ("world/develop",), "test": ("world/known", "world/new")},
        {
            "model": "captions/model.parquet",
            "second": "captions/second.parquet",
            "again": "captions/again.parquet",
            "truth": "world/train",
            "noise": "world/noise",
        },
    ),
    "emoji": World({"test": ("emoji/hand", "emoji/concepts", "emoji/stamps")}, {"data": "emoji/train"}),
}


@dataclass(frozen=True)
class Row:
    """A recipe of the study, by what differs from recipe.yaml; {start} in it is the folder of the start's model."""

    name: str
    says: str
    train: Mapping[str, Any]
    curate: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    core: bool = False
    captions: str = "model"  # of the world's tables one, or several with + between
    variant: str = ""  # of rows.yaml; rows of one variant are compared with each other
    world: str = "rendered"
    width: int = WIDTH
    start: str = CLIP

    @property
    def splits(self) -> Mapping[str, tuple[str, ...]]:
        return WORLDS[self.world].splits

    @property
    def tables(self) -> dict[str, str]:
        """Its captions: where they lie below the study's folder, by who wrote them."""
        return {name: WORLDS[self.world].tables[name] for name in self.captions.split("+")}


@cache
def rows() -> Mapping[str, Row]:
    """All rows, in the order of rows.yaml: those of the main table, then those of each variant as NAME_VARIANT."""
    read: dict[str, Any] = load_yaml(HERE / "rows.yaml")
    found = {
        name: Row(name=name, **{"train": {}, "curate": {}, "evaluate": {}, **row})
        for name, row in read["rows"].items()
    }
    variants = [
        _varied(found[name], str(variant), own, of_row or {})
        for variant, own in read["variants"].items()
        for name, of_row in own["rows"].items()
    ]
    return found | {row.name: row for row in variants}


def variants() -> dict[str, str]:
    """What each variant is; the main table is the empty one."""
    return {"": ""} | {str(name): own["says"] for name, own in load_yaml(HERE / "rows.yaml")["variants"].items()}


def named(names: list[str]) -> list[Row]:
    """Rows by name; `core` stands for the core rows, `variant:NAME` for those of a variant. All, without names."""
    known = rows()
    found: list[Row] = []
    for name in names or list(known):
        chosen = [
            row
            for row in known.values()
            if name == row.name or (name == "core" and row.core) or (row.variant and name == f"variant:{row.variant}")
        ]
        if not chosen:
            raise HolismError(f"no row is called {name}; expected some of {', '.join(known)}")
        found += chosen
    return list({row.name: row for row in found}.values())


def recipe(world: str) -> dict[str, Any]:
    """What all configurations of a world share."""
    return _layers("recipe.yaml", f"{world}.yaml")


def start_recipe(world: str) -> dict[str, Any]:
    """How the myopic CLIP of a world is trained."""
    return _layers("recipe.yaml", f"{world}.yaml", "start.yaml", f"{world}_start.yaml")


def _layers(*files: str) -> dict[str, Any]:
    """Files laid over each other; a world that wants nothing of its own has none."""
    layers = [load_yaml(HERE / file) for file in files if (HERE / file).exists()]
    return reduce(merge, layers, {})


def _varied(row: Row, variant: str, own: Mapping[str, Any], train: Mapping[str, Any]) -> Row:
    """A row as a variant has it: the variant's settings over the row's, those for this row alone over both."""
    fields = {name: value for name, value in own.items() if name not in ("says", "rows", "train")}
    merged = merge(merge(dict(row.train), own.get("train", {})), dict(train))
    return replace(row, name=f"{row.name}_{variant}", variant=variant, core=False, train=merged, **fields)
