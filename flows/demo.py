"""`make demo`: a world of rendered scenes, captioned, trained on and measured, on a laptop.

The scenes enter through the ordinary ingest stage, like anybody's images; everything after that is
`holism run configs/demo.yaml`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from flows.cli import main as holism
from flows.run import Session
from pipeline.demo_world.write import write_world
from pipeline.progress import duration

CONFIG = "configs/demo.yaml"
SCENES = Path("demo/scenes")
TRAIN_SCENES, HELDOUT_SCENES, SEED = 2000, 500, 0


def main() -> int:
    """Make the scenes if they are missing, run all stages, and say where everything is."""
    started = time.monotonic()
    write_world(SCENES, train=TRAIN_SCENES, heldout=HELDOUT_SCENES, seed=SEED)
    status = holism(["run", CONFIG])
    if status:
        return status
    print(_where(Session.open(CONFIG), time.monotonic() - started))
    return 0


def _where(session: Session, seconds: float) -> str:
    resolutions = session.resolve()
    captions, training, evaluation = (resolutions[stage].manifest for stage in ("caption", "train", "evaluate"))
    assert captions is not None
    assert training is not None
    assert evaluation is not None
    report = f"{evaluation.store}/{evaluation.detail['report']}"
    return (
        f"\ndone in {duration(seconds)}\n"
        f"  caption store   {captions.store}/captions/   (Parquet)\n"
        f"  model           {training.store}/{training.detail['runs']['holism']['folder']}   (training.load)\n"
        f"  report          {report}\n"
        f"\nlook at them:\n"
        f"  .venv/bin/holism browse {CONFIG}       then open http://127.0.0.1:8808\n"
        f"  .venv/bin/holism diversity {CONFIG} --model none    what curation dropped, and what that changed\n"
        f"  .venv/bin/python -m webbrowser file://{report}\n"
        f"  .venv/bin/holism status {CONFIG}"
    )


if __name__ == "__main__":
    sys.exit(main())
