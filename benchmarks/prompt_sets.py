"""How diverse captions are by what is asked: the paper's prompts, the `holism` set, one structured answer.

    python -m benchmarks.prompt_sets WORKSPACES [--images 300] [--sets paper,holism,structured]

Held-out scenes go through the real stages with the demo VLM, each set into a workspace of its own below the folder
WORKSPACES; what is there already is not made again. Then the report is written beside them, and its plots as PNG.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from pipeline.demo_world.render import render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample

SETS: dict[str, dict[str, Any]] = {
    "paper": {"set": "paper"},
    "holism": {"set": "holism"},
    "structured": {"set": "holism", "only": ["everything"]},
}


def write_config(folder: Path, name: str, threads: int) -> Path:
    """The configuration of one set."""
    path = folder / f"{name}.yaml"
    config = {
        "workspace": str(folder / name),
        "ingest": {"source": {"kind": "folder", "path": str(folder / "scenes")}},
        "caption": {"prompts": SETS[name], "ray": {"enabled": False, "actors": {"cpus": threads}}},
    }
    path.write_text(yaml.safe_dump(config), encoding="utf8")
    return path


def write_scenes(folder: Path, images: int) -> None:
    """Held-out scenes as PNG, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(HELDOUT_OFFSET, HELDOUT_OFFSET + images):
        if not (folder / f"{seed}.png").exists():
            render(sample(seed)).save(folder / f"{seed}.png")


def main() -> None:
    """Caption, curate, report."""
    from flows.cli import main as holism

    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_sets", description=__doc__)
    parser.add_argument("workspaces", type=Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plots", type=Path, help="folder for the plots as PNG")
    options = parser.parse_args()
    folder = options.workspaces.absolute()
    write_scenes(folder / "scenes", options.images)
    configs = [str(write_config(folder, name, options.threads)) for name in options.sets.split(",")]
    for config in configs:
        if status := holism(["run", config, "--stages", "ingest,caption,curate"]):
            raise SystemExit(status)
    plots = ["--plots", str(options.plots)] if options.plots else []
    raise SystemExit(holism(["diversity", *configs, "--output", str(folder / "diversity.html"), *plots]))


if __name__ == "__main__":
    main()
