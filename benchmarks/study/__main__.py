"""Command line of the study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.captions import ask
from benchmarks.study.emoji import write_emoji
from benchmarks.study.figures import gather
from benchmarks.study.plot import plot, plot_costs
from benchmarks.study.recipes import WORLDS, named
from benchmarks.study.runs import Job, Study
from benchmarks.study.table import fill, markdown
from benchmarks.study.world import SCENES, write_world
from pipeline.errors import HolismError

# A toy of the study that ends within a minute: few scenes, few steps, captions of the truth.
SMOKE_SCALE, SMOKE_ROWS = 0.001, ("o2m_truth", "mlp_last_block_truth")
SMOKE = (
    "train.global_batch=8", "train.epochs=1", "train.warmup_steps=1", "train.workers=0",
    "evaluate.readouts=[mean, max, branches]",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """See the package's docstring."""
    options = _parser().parse_args(arguments)
    root: Path = options.root
    try:
        match options.command:
            case "world":
                write_world(root / "world", options.scale, options.workers, options.splits)
            case "emoji":
                write_emoji(root / "emoji")
            case "captions":
                print(ask(root.resolve(), options.model, options.name, options.set))
            case "start":
                (row,) = named([options.row])
                print(Study(root.resolve(), tuple(options.set)).start(row))
            case "run":
                study = Study(root.resolve(), tuple(options.set))
                jobs = _jobs(options.rows, options.seeds, options.on)
                _run(study, jobs if options.rows else _with_captions(study, jobs), options.at_once)
            case "smoke":
                write_world(root / "world", SMOKE_SCALE, workers=1)
                _run(Study(root.resolve(), SMOKE), _jobs(SMOKE_ROWS, [0], "test"), at_once=2)
                print(markdown(root / "results", against=SMOKE_ROWS[0]))
            case "gather":
                print(f"{gather(root / 'results', options.file)} runs in {options.file}")
            case "plot":
                results = options.results or root / "results"
                if options.costs:
                    plot_costs(results, options.dataset, options.file)
                else:
                    plot(results, options.dataset, options.file, options.against, options.variant)
            case "table":
                results = options.results or root / "results"
                if options.page:
                    fill(options.page, results)
                else:
                    print(markdown(results, options.against))
    except HolismError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description="which recipe makes the better CLIP"
    )
    parser.add_argument("--root", type=Path, default=Path("study"), help="folder of scenes, workspaces and results")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of what is run")
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("world", help="write the scenes")
    world.add_argument("--splits", nargs="+", choices=SCENES, default=SCENES, help="some of them only")
    world.add_argument("--scale", type=float, default=1.0, help="share of the scenes, for trying things")
    world.add_argument("--workers", type=int, default=2, help="processes that paint")
    commands.add_parser("emoji", help="get the pictures of emoji and stamps, and write their splits")
    captions = commands.add_parser("captions", help="ask a model about the training scenes")
    captions.add_argument("--model", default="demo_vlm", help="as `caption.models` names it")
    captions.add_argument("--name", default="model", help="what rows call these captions")
    start = commands.add_parser("start", help="train the model that rows start from")
    start.add_argument("row", help="name of a row, which says its world and width")
    run = commands.add_parser("run", help="train and measure rows; what is there is not done again")
    run.add_argument("rows", nargs="*", help="names of rows.yaml; core, variant:NAME: those rows; none: all")
    run.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    run.add_argument("--on", choices=list(WORLDS["rendered"].splits), default="develop", help="scenes to score on")
    run.add_argument("--at-once", type=int, default=1, help="runs that go side by side, with a log each")
    commands.add_parser("smoke", help="a toy of all this, within a minute")
    together = commands.add_parser("gather", help="write all results as one file")
    together.add_argument("file", type=Path)
    picture = commands.add_parser("plot", help="a picture of the results on one benchmark")
    picture.add_argument("dataset", help="the name of a benchmark: develop, known, new, hand, concepts, stamps")
    picture.add_argument("file", type=Path, help="a PNG")
    picture.add_argument("--results", type=Path, help="folder or file of results; without it the root's")
    picture.add_argument("--against", help="a row: what the others differ by from it")
    picture.add_argument("--variant", default="", help="rows of a variant in place of the main ones")
    picture.add_argument(
        "--costs",
        action="store_true",
        help="quality against costs instead, of all rows that start from the CLIP of alt texts",
    )
    table = commands.add_parser("table", help="tables of the results, in Markdown")
    table.add_argument("--results", type=Path, help="folder or file of results; without it the root's")
    table.add_argument("--against", default="o2m", help="the row that others are compared with")
    table.add_argument("--page", type=Path, help="a page of Markdown whose tables are filled in instead")
    return parser


def _jobs(names: Sequence[str], seeds: Sequence[int], split: str) -> list[Job]:
    """Rows that have no such split are left out if nobody named them."""
    chosen = [row for row in named(list(names)) if names or split in row.splits]
    if lacking := [row for row in chosen if split not in row.splits]:
        raise HolismError(
            f"row {lacking[0].name} has no scenes to {split} on; expected --on {', '.join(lacking[0].splits)}"
        )
    return [Job(row, seed, split) for seed in seeds for row in chosen]


def _with_captions(study: Study, jobs: Sequence[Job]) -> list[Job]:
    """Of rows that nobody named those whose captions are there. What is left out is said; all cannot be."""
    lacks = {job.row.name: study.missing_captions(job.row) for job in jobs}
    if all(lacks.values()):
        raise HolismError(f"no captions are in {study.root}: {next(iter(lacks.values()))}")
    for lack in filter(None, lacks.values()):
        print(f"left out: {lack}", file=sys.stderr)
    return [job for job in jobs if not lacks[job.row.name]]


def _run(study: Study, jobs: Sequence[Job], at_once: int = 1) -> None:
    if at_once > 1:
        study.run_side_by_side(jobs, at_once)
        return
    for job in jobs:
        study.run(job)


if __name__ == "__main__":
    sys.exit(main())
