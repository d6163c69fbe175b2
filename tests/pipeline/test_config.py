"""Configuration: overrides, semantic parts, and messages that name the key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from pipeline.config import (
    Section,
    added,
    apply_overrides,
    build,
    load_yaml,
    merge,
    operational,
    partly_operational,
    semantic,
)
from pipeline.errors import ConfigError


class Fast(Section):
    moved: ClassVar = {"pace": "engine.speed"}

    kind: Literal["fast"] = "fast"
    speed: int = 3
    threads: int = operational(4, ge=1)


class Slow(Section):
    kind: Literal["slow"] = "slow"
    patience: float = 1.0


class Root(Section):
    name: str
    engine: Annotated[Fast | Slow, Field(discriminator="kind")] = Field(default_factory=Fast)
    sizes: tuple[int, ...] = (1, 2)
    more: dict[str, Fast] = Field(default_factory=dict)
    workers: int = operational(1, ge=1)

    @model_validator(mode="after")
    def _rule(self) -> Root:
        if self.name == "never":
            raise ValueError("the name 'never' is taken; choose another")
        return self


def test_sections_are_frozen() -> None:
    with pytest.raises(ValidationError):
        build(Root, {"name": "a"}).name = "b"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "'name' is missing: add it to the configuration"),
        ({"name": "a", "worker": 2}, "unknown key 'worker': did you mean 'workers'?"),
        ({"name": "a", "zzzz": 2}, "unknown key 'zzzz': known keys here: engine, more, name, sizes, workers"),
        ({"name": "a", "engine": {"kind": "fast", "sped": 1}}, "unknown key 'engine.sped': did you mean 'speed'?"),
        ({"name": "a", "more": {"fast": {"pace": 1}}}, "'more.fast.pace' is called 'engine.speed' now: rename it"),
        ({"name": "a", "engine": {"kind": "medium"}}, "'engine.kind' is 'medium': expected one of 'fast', 'slow'"),
        ({"name": "a", "engine": {"speed": 1}}, "'engine.kind' is missing"),
        (
            {"name": "a", "engine": {"kind": "fast", "speed": "x"}},
            "'engine.speed' is 'x': expected a whole number",
        ),
        ({"name": "a", "workers": 0}, "'workers' is 0: expected a number of at least 1"),
        ({"name": "a", "sizes": [1, "b"]}, "'sizes.1' is 'b'"),
        ({"name": "a", "more": {"fast": {"speed": "x"}}}, "'more.fast.speed' is 'x'"),
        ({"name": "a", "sizes": 3}, "'sizes' is 3: expected a list"),
        ({"name": "a", "engine": 3}, "'engine' is 3: expected a mapping of keys to values"),
        ({"name": "a", "more": []}, "'more' is []: expected a mapping of keys to values"),
        ({"name": 3}, "'name' is 3: expected text"),
        ({"name": "never"}, "the name 'never' is taken; choose another"),
    ],
)
def test_messages_name_the_key_and_what_was_expected(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Root, data, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Choices(Section):
    column: str | Annotated[int, Field(ge=0, strict=True)] | None = None
    path: str | tuple[str, ...] = ""
    pair: tuple[float, float] = (0, 1)
    flag: bool = True
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = Field(("x",), min_length=1)
    home: str = Field("x", min_length=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"column": 1.5}, "'column' is 1.5: expected text or a whole number"),
        ({"column": -1}, "'column' is -1: expected text or a number of at least 0"),
        ({"path": 3}, "'path' is 3: expected text or a list"),
        ({"pair": [1]}, "'pair' is [1]: expected a list of at least 2 items"),
        ({"pair": [1, 2, 3]}, "'pair' is [1, 2, 3]: expected a list of at most 2 items"),
        ({"flag": "perhaps"}, "'flag' is 'perhaps': expected true or false"),
        ({"kind": "c"}, "'kind' is 'c': expected 'a' or 'b'"),
        ({"names": []}, "'names' is []: expected a list of at least 1 items"),
        ({"names": [1]}, "'names.0' is 1: expected text"),
        ({"home": ""}, "'home' is '': expected text that is not empty"),
    ],
)
def test_a_value_of_several_types_is_one_problem_under_the_key_that_was_written(
    data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Choices, data, "my.yaml")
    assert str(caught.value) == f"my.yaml: {message}"


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError, match=r"my.yaml has 2 problems:\n  .*name.*\n  .*workers") as caught:
        build(Root, {"workers": "many"}, "my.yaml")
    assert str(caught.value).count("\n") == 2


def test_operational_settings_are_not_semantic() -> None:
    one = build(Root, {"name": "a", "engine": {"kind": "fast", "threads": 1}, "more": {"x": {"threads": 2}}})
    two = build(Root, {"name": "a", "engine": {"kind": "fast", "threads": 8}, "more": {"x": {}}, "workers": 5})
    assert semantic(one) == semantic(two)
    assert semantic(one)["engine"] == {"kind": "fast", "speed": 3}
    assert semantic(one) != semantic(build(Root, {"name": "a", "engine": {"kind": "fast", "speed": 4}}))


class Lists(Section):
    many: tuple[Fast, ...] = ()
    by_name: dict[str, tuple[Fast, ...]] = Field(default_factory=dict)
    others: dict[str, Any] = partly_operational(["memory"])


def test_operational_settings_inside_lists_are_not_semantic() -> None:
    one, other = ({"many": [{"threads": n}, {}], "by_name": {"a": [{"threads": n}]}} for n in (1, 8))
    assert semantic(build(Lists, one)) == semantic(build(Lists, other))
    assert semantic(build(Lists, one))["many"] == [{"kind": "fast", "speed": 3}] * 2


def test_of_partly_operational_options_only_the_others_are_semantic() -> None:
    assert semantic(build(Lists, {"others": {"memory": 3}})) == semantic(build(Lists, {}))
    assert "others" not in semantic(build(Lists, {}))
    assert semantic(build(Lists, {"others": {"memory": 3, "new": [1]}}))["others"] == {"new": [1]}


class Later(Fast):
    encoding: str = added("utf-8", min_length=2)


def test_a_field_that_came_later_changes_nothing_at_its_default() -> None:
    assert semantic(build(Later, {})) == semantic(build(Later, {"encoding": "utf-8"})) == semantic(build(Fast, {}))
    assert semantic(build(Later, {"encoding": "latin"})) == {**semantic(build(Fast, {})), "encoding": "latin"}
    with pytest.raises(ConfigError, match="encoding"):
        build(Later, {"encoding": ""})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "inf", ".inf", "-inf", "nan", "1" + "0" * 400])
def test_numbers_are_finite(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"'patience' is .*: expected a (finite )?number"):
        build(Slow, {"patience": value})


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Root, {"name": "a", "workers": "x" * 10_000})
    assert len(str(caught.value)) < 300


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)


@given(st.lists(st.tuples(KEYS, st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_overrides_set_what_they_name_and_leave_the_rest(sets: list[tuple[list[str], int]]) -> None:
    data: dict[str, Any] = {"keep": {"x": [1]}}
    before = copy.deepcopy(data)
    for path, value in sets:
        override = [f"{'.'.join(path)}={value}"]
        if _passes_through_a_value(data, path):
            with pytest.raises(ConfigError, match="is a value, not a section"):
                apply_overrides(data, override)
            continue
        data = apply_overrides(data, override)
        node: Any = data
        for name in path:
            node = node[name]
        assert node == value
    assert data["keep"] == before["keep"]


def _passes_through_a_value(data: Any, path: list[str]) -> bool:
    for name in path[:-1]:
        data = data.get(name, {})
        if not isinstance(data, dict):
            return True
    return False


def test_overrides_read_yaml_and_do_not_change_their_input() -> None:
    data = {"a": {"b": 1}}
    assert apply_overrides(data, ["a.b=[1, x]", "a.c=true", "d=", "e=k=v"]) == {
        "a": {"b": [1, "x"], "c": True},
        "d": None,
        "e": "k=v",
    }
    assert data == {"a": {"b": 1}}


@pytest.mark.parametrize("override", ["a", "=1", "a..b=1", "a=[", ".a=1"])
def test_malformed_overrides_are_named(override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        apply_overrides({}, [override])


def test_merge_is_deep_and_replaces_lists() -> None:
    assert merge({"a": {"x": 1, "l": [1, 2]}, "b": 1}, {"a": {"l": [3]}, "b": {"c": 2}}) == {
        "a": {"x": 1, "l": [3]},
        "b": {"c": 2},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the configuration"),
        ("a: [", "is not valid YAML"),
        ("- a", "holds a list, expected a mapping"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert "c.yaml" in str(caught.value)


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "c.yaml") == {}
