"""The stage contract: what makes a stage run again, what does not, and what it says when it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commits import CommitLog
from pipeline.config import Section, operational
from pipeline.errors import MissingInputError
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun, execute, resolve
from pipeline.workspace import Workspace


class Settings(Section):
    value: int = 1
    workers: int = operational(1)


class Chain:
    """Two stages, the second of which adds to what the first wrote; both count their runs."""

    def __init__(self, root: Path | str) -> None:
        self.space = Workspace(str(root))
        self.outside = {"first": "same"}
        self.ran: list[str] = []
        self.seen: list[StageRun] = []
        self.stages = [
            Stage("first", 1, (), Settings, self._run("first"), lambda _: dict(self.outside)),
            Stage("second", 1, ("first",), Settings, self._run("second")),
        ]
        self.configs: dict[str, Section] = {"first": Settings(), "second": Settings()}

    def _run(self, name: str) -> Callable[[StageRun], Outcome]:
        def run(given: StageRun) -> Outcome:
            self.ran.append(name)
            self.seen.append(given)
            above = sum(int(m.location(p).read()) for m in given.inputs.values() for p in m.parts)
            folder = given.workspace.folder(name) / given.fingerprint[:12]
            value = str(given.config.value // 10 + above).encode()
            part = CommitLog(folder).commit("part", value, rows=1)
            return Outcome(folder.uri, [part], {"n": 1}, {"d": 1}, ["careful"])

        return run

    def go(self, **options: Any) -> Mapping[str, Manifest]:
        self.ran.clear()
        for stage in self.stages:
            execute(resolve(self.stages, self.configs, self.space)[stage.name], self.space, **options)
        return {name: r.manifest for name, r in resolve(self.stages, self.configs, self.space).items() if r.manifest}


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_a_second_run_does_nothing(chain: Chain) -> None:
    first = chain.go()
    assert chain.ran == ["first", "second"]
    assert chain.go() == first
    assert chain.ran == []


def test_the_manifest_says_what_was_done(chain: Chain) -> None:
    manifest = chain.go()["second"]
    assert (manifest.counts, manifest.detail, manifest.warnings) == ({"n": 1}, {"d": 1}, ("careful",))
    assert manifest.config == {"value": 1}
    assert manifest.inputs == {"first": chain.go()["first"].digest}
    assert manifest.location(manifest.parts[0]).read() == b"0"
    assert manifest.seconds >= 0
    assert manifest.created_at.startswith("20")


def test_operational_settings_run_nothing(chain: Chain) -> None:
    chain.go()
    chain.configs["first"] = Settings(workers=9)
    chain.go()
    assert chain.ran == []


def test_a_changed_setting_runs_its_stage_and_what_depends_on_the_result(chain: Chain) -> None:
    chain.go()
    chain.configs["second"] = Settings(value=50)
    chain.go()
    assert chain.ran == ["second"]
    chain.configs["first"] = Settings(value=10)
    chain.go()
    assert chain.ran == ["first", "second"]
    chain.configs = {"first": Settings(), "second": Settings()}
    chain.go()
    assert chain.ran == []  # the earlier results are still there


def test_a_stage_that_comes_to_the_same_result_stops_the_chain(chain: Chain) -> None:
    chain.go()
    chain.configs["first"] = Settings(value=2)  # another setting, the same content
    chain.go()
    assert chain.ran == ["first"]


def test_a_new_version_and_a_change_outside_run_the_stage(chain: Chain) -> None:
    chain.go()
    chain.outside["first"] = "changed"
    chain.go()
    assert chain.ran == ["first"]
    chain.stages[1] = replace(chain.stages[1], version=2)
    chain.go()
    assert chain.ran == ["second"]


def test_a_missing_input_names_the_command_to_run_first(chain: Chain) -> None:
    found = resolve(chain.stages, chain.configs, chain.space)
    assert found["first"].missing == ()
    assert found["second"].missing == ("first",)
    assert (found["second"].fingerprint, found["second"].done) == (None, False)
    with pytest.raises(
        MissingInputError, match=r"'second' needs the result of 'first' .* run it first: holism first CONFIG"
    ):
        execute(found["second"], chain.space)


def test_a_failed_stage_leaves_no_manifest(chain: Chain) -> None:
    def fail(_: StageRun) -> Outcome:
        raise RuntimeError("broken")

    good = chain.stages[1]
    chain.stages[1] = replace(good, run=fail)
    with pytest.raises(RuntimeError):
        chain.go()
    assert not resolve(chain.stages, chain.configs, chain.space)["second"].done
    chain.stages[1] = good
    chain.go()
    assert chain.ran == ["second"]


def test_retrying_runs_a_finished_stage_and_services_are_handed_on(chain: Chain) -> None:
    chain.go()
    found = resolve(chain.stages, chain.configs, chain.space)
    chain.ran.clear()
    execute(found["second"], chain.space, retry_failed=True, services={"scorer": 7})
    assert chain.ran == ["second"]
    assert chain.seen[-1].retry_failed
    assert chain.seen[-1].services == {"scorer": 7}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=6))
def test_whatever_was_run_before_the_result_is_that_of_the_settings(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int]]
) -> None:
    chain = Chain(tmp_path_factory.mktemp("chain"))
    known: dict[tuple[int, int], Mapping[str, Manifest]] = {}
    for one, two in history:
        chain.configs = {"first": Settings(value=one), "second": Settings(value=two)}
        result = chain.go()
        assert int(result["second"].location(result["second"].parts[0]).read()) == one // 10 + two // 10
        assert known.setdefault((one, two), result) == result


def test_a_workspace_in_memory(tmp_path: Path) -> None:
    chain = Chain(f"memory://{tmp_path.name}")
    first = chain.go()
    assert chain.go() == first
    assert chain.ran == []
