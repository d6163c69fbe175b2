"""Whoever dies, engine or worker or all: nothing is lost or doubled, and only a death that was seen costs an image."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, ItemsView
from contextlib import closing
from pathlib import Path

import pytest

from captioning.asking import attempts, job
from captioning.asking.attempts import Attempt, Worker
from captioning.asking.missing import Demand
from captioning.asking.worker import WorkerSpec
from captioning.engines.child import ChildEngine
from pipeline.cluster.config import ClusterConfig
from pipeline.errors import EngineError
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.captioning import world
from tests.processes import alive, family

ROOT = Path(__file__).parents[3]
IMAGES, CELLS = 20, 3

RUN = """
import json, sys
from tests.captioning import world
from pipeline.workspace import Workspace
world.caption(Workspace(sys.argv[1]), world.config(**json.loads(sys.argv[2])))
"""


def fake(**faults: object) -> dict[str, object]:
    return {"engine": {"kind": "fake", "fake": faults}}


def killed_run(made: Workspace, settings: dict[str, object], when: Callable[[], bool]) -> None:
    """Run the stage in a process of its own, and SIGKILL it as soon as something is so. Its engine ends with it."""
    command = [sys.executable, "-c", RUN, str(made.root), json.dumps(settings)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    until(when)
    children = family(process.pid)
    assert children
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, children)))


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def store_of(made: Workspace) -> Path:
    return Path(str(made.folder("caption")))


def notes_of(made: Workspace) -> dict[str, bytes]:
    return attempts.notes(made.folder("caption"))


def test_killing_the_run_anywhere_loses_and_doubles_nothing(tmp_path: Path) -> None:
    chain = {"prompts": {"set": "holism", "only": ["main_object", "attributes", "nouns"]}}
    quiet = world.workspace(tmp_path / "quiet", images=24)
    expected = world.content(world.caption(quiet, world.config(**chain)), quiet)
    made = world.workspace(tmp_path / "killed", images=24)
    slow = {**fake(delay_seconds=0.1), **chain}
    for parts in (1, 3):
        killed_run(made, slow, lambda parts=parts: len(list(store_of(made).rglob("0*.parquet"))) >= parts)
    assert made.manifests("caption") == []
    assert world.content(world.caption(made, world.config(**chain, **fake(die_at_call=12))), made) == expected


def test_a_run_that_is_killed_again_and_again_blames_no_image(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=4)
    for expected in (1, 2, 2):  # with the chunk in hand, then twice with its first image alone
        before = notes_of(made).items()

        def taken_in_hand(expected: int = expected, before: ItemsView[str, bytes] = before) -> bool:
            now = notes_of(made).items()
            return len(now) == expected and not now & before

        killed_run(made, fake(delay_seconds=60), taken_in_hand)
    manifest = world.caption(made, world.config())
    assert (manifest.counts["captions"], manifest.counts["errors"]) == (4 * CELLS, 0)
    assert notes_of(made) == {}


def test_an_image_that_kills_its_engine_becomes_error_rows_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.workspace(tmp_path)
    poison, starts, start = world.image_ids(made)[5], list[int](), ChildEngine.start

    def counted(self: ChildEngine) -> None:
        starts.append(1)
        start(self)

    monkeypatch.setattr(ChildEngine, "start", counted)
    manifest = world.caption(made, world.config(**fake(die_on=[poison])))
    bad = [row for row in world.rows(manifest, made) if row["status"] == "error"]
    assert [row["image_id"] for row in bad] == [poison] * CELLS
    assert all(
        row["error"] == "quarantined: crashed the engine twice on its own" and row["text"] is None for row in bad
    )
    assert manifest.counts["captions"] == (IMAGES - 1) * CELLS
    assert "--retry-failed" in manifest.warnings[0]
    assert any("started again, the last time with: its process was killed" in text for text in manifest.warnings)
    deaths = 1 + attempts.TRIES  # in company, then alone
    assert len(starts) in {deaths, deaths + 1}  # after the last death only if there was other work left
    assert notes_of(made) == {}

    quiet = world.workspace(tmp_path / "quiet")
    expected = world.content(world.caption(quiet, world.config()), quiet)
    assert world.content(world.caption(made, world.config()), made) == world.content(manifest, made)
    assert world.content(world.caption(made, world.config(), retry_failed=True), made) == expected


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"die_at_call": 1}, r"died 8 times without one answer in between: its process was killed"),
        ({"die_on": ["probe"]}, r"died 3 times while it started, the last time because its process was killed"),
    ],
)
def test_an_engine_that_always_dies_stops_the_run(tmp_path: Path, fault: dict[str, object], said: str) -> None:
    made = world.workspace(tmp_path, images=8)
    with pytest.raises(EngineError, match=said):
        world.caption(made, world.config(**fake(**fault)))
    assert notes_of(made) == {}


def test_what_counts_against_an_image(tmp_path: Path) -> None:
    store = Location.of(tmp_path)
    me, other, before = Worker("now", "a:1"), Worker("now", "b:2"), Worker("then", "a:1")

    def state_for(worker: Worker) -> tuple[int, bool]:
        attempt = Attempt.at(store, "image", worker)
        return attempt.deaths, attempt.is_suspect

    assert state_for(me) == (0, False)
    Attempt.at(store, "image", before).begin(alone=True)
    assert state_for(me) == (0, True)  # a run that died as a whole
    Attempt.at(store, "image", me).begin(alone=True)
    assert state_for(me) == (0, True)
    assert state_for(other) == (1, True)  # another worker of the run has it in hand now: mine is dead
    Attempt.at(store, "image", other).died()
    assert state_for(other) == (2, True)
    Attempt.at(store, "image", me).begin(alone=False)
    seen, _ = state_for(me)
    assert state_for(other) == (seen, True)  # in company it could have been anybody
    (tmp_path / attempts.ATTEMPTS / "image.json").write_text('{"count": 7}')
    assert state_for(me) == (0, True)
    Attempt.at(store, "image", me).clear()
    assert state_for(me) == (0, False)


def test_a_stop_takes_back_only_the_notes_of_its_run(tmp_path: Path) -> None:
    made = world.workspace(tmp_path)
    config = world.config(**fake(delay_seconds=0.05))
    demand = Demand.of(config, made.manifests("ingest")[0], made.folder("caption"))
    spec = WorkerSpec(made.folder("caption"), demand.shares, config.models[0], config.engine)
    first, *items = demand.work(demand.cells, config.chunk_images, retry_failed=False)
    for item in (first, items[-1]):  # left by a run that was killed
        Attempt.at(spec.store, item.note, Worker("then", "a:1")).begin(alone=False)
    left = notes_of(made)
    with closing(job.run(spec, [first, *items[:-1]], config, ClusterConfig())) as parts:
        assert next(iter(parts)).rows
        until(lambda: notes_of(made) != left)  # at that moment no other work need have begun
    assert notes_of(made).items() <= left.items()
    assert str(store_of(made) / attempts.ATTEMPTS / f"{items[-1].note}.json") in notes_of(made)
