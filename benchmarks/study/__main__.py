"""Command line of the study."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.study.world import write_world


def main() -> None:
    """See the package's docstring."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study")
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("world", help="write the scenes")
    world.add_argument("--out", type=Path, default=Path("study/world"))
    world.add_argument("--scale", type=float, default=1.0, help="share of the scenes, for trying things")
    world.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    write_world(options.out, options.scale, options.workers)


if __name__ == "__main__":
    main()
