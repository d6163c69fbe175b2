"""Writes the demo world as plain image files with a text beside each, the way anybody has them.

    python -m pipeline.demo_world --out DIR --train 2000 --heldout 500 --seed 0

DIR/train/NAME.jpg with NAME.txt (the alt text) is what the pipeline gets to see. DIR/heldout is a benchmark folder
(see benchmark.py) with truth.parquet beside; DIR/train_truth.parquet holds the truth of the training images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.demo_world.write import write_world


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo_world", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--train", type=int, default=2000, help="number of training images")
    parser.add_argument("--heldout", type=int, default=500, help="number of held-out images")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    written = write_world(args.out, args.train, args.heldout, args.seed)
    outcome = "written" if written else "already there"
    print(f"{args.out}: {args.train} training and {args.heldout} held-out images {outcome}")


if __name__ == "__main__":
    main()
