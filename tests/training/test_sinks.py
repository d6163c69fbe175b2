"""Sinks: what metrics.jsonl has arrives in them too, and none of them can end a run."""

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.stops import StoppedError, stoppable
from tests.training.test_saving import stopped_at
from tests.training.test_trainer import figures, run

Recipe = Callable[..., dict[str, Any]]
DOCS = Path(__file__).parents[2] / "docs" / "training.md"


class Kept:
    """A sink that remembers."""

    made: list["Kept"] = []  # noqa: RUF012 (emptied by each test)

    def __init__(self, run: Any, fails: str = "") -> None:
        if fails == "made":
            raise OSError("no network")
        self.run, self.fails, self.rows, self.closed = run, fails, list[tuple[int, dict[str, float]]](), 0
        Kept.made.append(self)

    def add(self, step: int, figures: dict[str, float]) -> None:
        if self.fails == f"step {step}":
            raise OSError("no network")
        self.rows.append((step, figures))

    def close(self) -> None:
        self.closed += 1


KEPT = f"{__name__}:Kept"


@pytest.fixture(autouse=True)
def _none_made() -> None:
    Kept.made.clear()


def test_a_sink_gets_every_row_of_the_metrics(tmp_path: Path, recipe: Recipe) -> None:
    trained = run(tmp_path, recipe(sinks={KEPT: {}}))
    (sink,) = Kept.made
    assert (sink.run.name, sink.run.id, sink.run.start, sink.closed) == ("t", "run", 0, 1)
    assert sink.run.recipe["lr"] == 1e-3
    rows = figures(trained.metrics)
    assert [step for step, _ in sink.rows] == [row["step"] for row in rows] == list(range(9))
    for (_, got), row in zip(sink.rows, rows, strict=True):
        assert {
            name: value for name, value in row.items() if name != "step" and value is not None
        }.items() <= got.items()


def test_a_run_that_goes_on_tells_its_sinks_from_where(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(sinks={KEPT: {}})
    stopped_at(4, monkeypatch)
    with stoppable(), pytest.raises(StoppedError):
        run(tmp_path, settings)
    run(tmp_path, settings)
    stopped, again = Kept.made
    assert (stopped.closed, len(stopped.rows)) == (1, 5)
    assert (again.run.start, again.run.id, [step for step, _ in again.rows]) == (5, stopped.run.id, [5, 6, 7, 8])


def test_a_sink_that_fails_is_named_once_and_the_run_goes_on(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = run(tmp_path, recipe(sinks={KEPT: {"fails": "step 3"}}))
    assert trained.steps == 9
    assert len(Kept.made[0].rows) == 3
    said = capsys.readouterr().err
    assert said.count(f"warning: the sink {KEPT} failed and gets nothing more (no network)") == 1


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ({KEPT: {"fails": "made"}}, r"test_sinks:Kept cannot be opened \(OSError: no network\)"),
        ({KEPT: {"colour": "red"}}, r"cannot be opened \(TypeError: .*colour"),
        ({"no_such_module_here:Sink": {}}, "put the folder of no_such_module_here.py on PYTHONPATH"),
        ({f"{__name__}:Absent": {}}, "has no Absent"),
        ({"wandb": {}}, "found the sink 'wandb', expected tensorboard or MODULE:NAME"),
    ],
)
def test_a_sink_that_cannot_be_made_is_an_error_before_the_first_step(
    tmp_path: Path, recipe: Recipe, sinks: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, recipe(sinks=sinks))


def test_tensorboard_has_the_figures(tmp_path: Path, recipe: Recipe) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = run(tmp_path, recipe(sinks={"tensorboard": {}}))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    rows = figures(trained.metrics)
    for name in ("loss", "loss/m2m/style", "lr"):
        assert [event.step for event in found.Scalars(name)] == list(range(9))
        assert [event.value for event in found.Scalars(name)] == pytest.approx([row[name] for row in rows])
    run(tmp_path / "other", recipe(sinks={"tensorboard": {"folder": str(tmp_path / "boards")}}))
    assert list((tmp_path / "boards" / "run").glob("events.*"))


def test_without_tensorboard_a_sentence_says_what_to_do(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"needs the package tensorboard; install it"):
        run(tmp_path, recipe(sinks={"tensorboard": {}}))


def test_the_docs_own_sink_works(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a module that stands in for W&B, and takes what W&B's own functions take."""
    (code,) = re.findall(r"```python\n(import wandb\n.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 12
    calls: list[Any] = []

    class WandbRun:
        def log(self, data: dict[str, Any], step: int | None = None) -> None:
            calls.append((step, data["loss"]))

        def finish(self) -> None:
            calls.append("finish")

    def init(*, project: str, name: str, id: str, resume: str, config: dict[str, Any]) -> WandbRun:  # noqa: A002
        calls.append((project, name, id, resume, config["global_batch"]))
        return WandbRun()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    (tmp_path / "my_sinks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    trained = run(tmp_path, recipe(sinks={"my_sinks:Wandb": {"project": "clip"}}))
    sys.modules.pop("my_sinks")
    losses = [(row["step"], row["loss"]) for row in figures(trained.metrics)]
    assert calls == [("clip", "t", "run", "allow", 6), *losses, "finish"]
