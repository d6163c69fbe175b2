"""What a kill costs the caption stage: rows lost, rows twice, and tokens paid again.

The fake engine writes a ledger: every call adds what a real engine would have been paid for, whoever dies afterwards.
One undisturbed run says which rows and how many tokens there have to be. Then each run is killed half-way, in its own
manner and on a workspace of its own, and the same command is given again until it ends well.

    python -m benchmarks.caption_kills --images 5000
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.caption_scale import write_config, write_tars
from captioning.store import shard_captions
from flows import cli
from pipeline.ingest import shard_names
from pipeline.workspace import Workspace

CHUNK_IMAGES = 64
ENGINE_AT_ONCE = 256  # as many chunks are in hand as with an engine that answers so many questions together
TAR_IMAGES = 1000
POLL_SECONDS = 0.05
LIMIT_SECONDS = 600
RUNS = 3  # after which a run that still fails is a failure of ours
COLUMNS = (
    "disturbance", "runs", "rows identical", "rows lost", "rows twice", "tokens", "of undisturbed", "seconds",
    "actors outlive it by",
)  # fmt: skip
Row = tuple[str, str, str, str | None]


@dataclass(frozen=True)
class Trial:
    """A workspace over the common tars, and the ledger of its engine."""

    folder: Path

    @property
    def config(self) -> str:
        """The configuration file."""
        return str(self.folder / "holism.yaml")

    @property
    def ledger(self) -> Path:
        """What the engine writes."""
        return self.folder / "ledger"

    @classmethod
    def make(cls, folder: Path, tars: Path, delay: float) -> Trial:
        """Write the configuration and ingest the tars. Every call takes `delay` seconds."""
        trial = cls(folder)
        folder.mkdir()
        (folder / "tars").symlink_to(tars)
        fake = {"delay_seconds": delay, "ledger": str(trial.ledger), "at_once": ENGINE_AT_ONCE}
        write_config(folder, {"engine": {"kind": "fake", "fake": fake}, "chunk_images": CHUNK_IMAGES})
        if cli.main(["ingest", trial.config]):
            raise SystemExit("ingest failed")
        return trial

    def calls(self) -> list[list[int]]:
        """The ledger's whole lines: process, questions, output tokens."""
        written = self.ledger.read_text() if self.ledger.exists() else ""
        return [[int(figure) for figure in line.split()] for line in written.split("\n")[:-1]]

    def tokens(self) -> int:
        """All that was paid for."""
        return sum(tokens for _, _, tokens in self.calls())

    def rows(self) -> Counter[Row]:
        """The rows that the manifest selects; a count above one is a row that is there twice."""
        workspace = Workspace(str(self.folder / "workspace"))
        captions, ingest = workspace.manifests("caption")[0], workspace.manifests("ingest")[0]
        columns = ["key", "caption_id", "status", "text"]
        return Counter(
            tuple(row.values())
            for shard in shard_names(ingest)
            for row in shard_captions(captions, shard, columns).to_pylist()
        )


def caption(trial: Trial, disturb: Callable[[Trial, int], None] | None = None, when: int = 0) -> int:
    """The caption command in this process; returns its exit status. `disturb` runs beside it, inside the driver."""
    sys.stderr = open(trial.folder / "log", "a", encoding="utf8")  # noqa: SIM115 - for the rest of this process
    os.dup2(sys.stderr.fileno(), 2)
    if disturb is not None:
        threading.Thread(target=disturb, args=(trial, when), daemon=True).start()
    return cli.main(["caption", trial.config])


def _wait(trial: Trial, calls: int) -> None:
    while len(trial.calls()) < calls:
        time.sleep(POLL_SECONDS)


def _kill_actor(trial: Trial, when: int, *, no_restart: bool) -> None:
    """From inside the driver: only there are handles of the pool's actors."""
    import ray

    _wait(trial, when)
    handles = [one for one in gc.get_objects() if isinstance(one, ray.actor.ActorHandle) and "RayWorker" in repr(one)]
    ray.kill(handles[0], no_restart=no_restart)


def restart_actor(trial: Trial, when: int) -> None:
    """`ray.kill` of an actor that Ray may start again."""
    _kill_actor(trial, when, no_restart=False)


def end_actor(trial: Trial, when: int) -> None:
    """`ray.kill` of an actor for good."""
    _kill_actor(trial, when, no_restart=True)


def kill_worker(trial: Trial, when: int) -> None:
    """SIGKILL of the process that wrote the ledger's last line."""
    _wait(trial, when)
    os.kill(trial.calls()[-1][0], signal.SIGKILL)


def kill_driver(trial: Trial, when: int) -> None:
    """SIGKILL of the process that runs the stage, and with it of this thread."""
    _wait(trial, when)
    os.kill(os.getpid(), signal.SIGKILL)


def run(trial: Trial, disturb: Callable[[Trial, int], None] | None, when: int) -> tuple[int, float, float]:
    """Disturb the stage, then run it until it ends well, at once: runs, seconds, seconds that actors outlived it."""
    context, started, outlived = multiprocessing.get_context("spawn"), time.monotonic(), [0.0]
    for attempt in range(1, RUNS + 1):
        args = (trial, disturb, when) if attempt == 1 else (trial,)
        process = context.Process(target=_exit_with_status, args=args)
        process.start()
        actors = _follow(process)
        if process.exitcode == 0:
            return attempt, time.monotonic() - started, max(outlived)
        print(f"  run {attempt} ended with status {process.exitcode}", file=sys.stderr)
        threading.Thread(target=_outlive, args=(actors, outlived)).start()
    raise SystemExit(f"the stage did not end well in {RUNS} runs; see {trial.folder / 'log'}")


def _outlive(actors: list[psutil.Process], outlived: list[float]) -> None:
    started = time.monotonic()
    psutil.wait_procs(actors)
    outlived.append(time.monotonic() - started)


def _exit_with_status(*args: object) -> None:
    sys.exit(caption(*args))  # type: ignore[arg-type]


def _follow(process: multiprocessing.process.BaseProcess) -> list[psutil.Process]:
    """Wait for a run to end; returns its actors as they were when it was last looked at."""
    deadline, driver = time.monotonic() + LIMIT_SECONDS, psutil.Process(process.pid)
    actors: list[psutil.Process] = []
    while process.is_alive() and time.monotonic() < deadline:
        process.join(POLL_SECONDS)
        with suppress(psutil.Error):
            found = driver.children(recursive=True)
            actors = [child for child in found if "RayWorker" in " ".join(child.cmdline())] or actors
    if process.is_alive():
        raise SystemExit(f"a run takes more than {LIMIT_SECONDS} s")
    return actors


def main() -> None:
    """Run undisturbed, then once for every way to be killed; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of a call; actors outlive a driver by 4 s")
    parser.add_argument("--folder", type=Path, help="where to work, and to keep what was made (default: temporary)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holism-kills-", dir=options.folder))
    write_tars(folder / "tars", options.images, TAR_IMAGES)
    lines, expected, paid = [], Counter[Row](), 0
    for disturb in (None, restart_actor, end_actor, kill_worker, kill_driver):
        name = disturb.__name__.replace("_", " ") if disturb else "none"
        print(name, file=sys.stderr)
        trial = Trial.make(folder / name.replace(" ", "-"), folder / "tars", options.delay)
        runs, seconds, outlived = run(trial, disturb, options.images // 2)
        rows, tokens = trial.rows(), trial.tokens()
        if disturb is None:
            expected, paid = rows, tokens
        lost, twice = (expected - rows).total(), sum(count - 1 for count in rows.values())
        lines.append(
            f"| {name} | {runs} | {'yes' if rows == expected else 'NO'} | {lost} | {twice} | {tokens:,} "
            f"| {tokens / paid:.3f} | {seconds:.0f} | {f'{outlived:.1f} s' if runs > 1 else ''} |"
        )
        print(lines[-1], file=sys.stderr)
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    print("\n".join(lines))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
