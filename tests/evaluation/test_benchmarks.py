"""Benchmark folders: what is in them, what is missing, and their identity."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation import benchmarks
from pipeline.errors import ConfigError, InputError


def test_labels_and_queries_come_back_as_indices(squares: Path) -> None:
    found = benchmarks.read(squares)
    assert len(found.files) == 12
    assert found.labels["size"][0] == -1
    assert [found.spec.classification["colour"].classes[i] for i in found.labels["colour"][:4]] == [
        "red",
        "red",
        "green",
        "green",
    ]
    colour, detail = found.queries
    assert (colour.perspective, len(colour.texts), len(colour.pair_text_P)) == ("colour", 3, 12)
    assert (detail.pair_text_P == detail.pair_image_P).all()
    assert len(found.texts) == len(set(found.texts)) == 3 + 12 + 6 + 2


@pytest.mark.parametrize("part", ["benchmark.yaml", "labels.parquet", "images"])
def test_a_missing_part_is_named(squares: Path, part: str) -> None:
    path = squares / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=part):
        benchmarks.read(squares)


def test_a_missing_folder_and_a_missing_picture_are_named(squares: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no benchmark folder"):
        benchmarks.read(tmp_path / "nowhere")
    (squares / "images" / "0-red-large.png").unlink()
    with pytest.raises(InputError, match=r"1 of 12 images .* '0-red-large.png'"):
        benchmarks.read(squares)


Change = Callable[[list[dict[str, Any]]], Any]


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("labels", lambda rows: rows[3].update(colour="mauve"), "'mauve' is no class of task 'colour'"),
        ("labels", lambda rows: rows[3].update(file=rows[2]["file"]), "more than once"),
        ("labels", lambda rows: [row.pop("size") for row in rows], "size is missing"),
        ("labels", lambda rows: [row.update(size=None) for row in rows], "no image has a label for task 'size'"),
        ("queries", lambda rows: rows[0].update(relevant=["x.png"]), "names 'x.png'"),
        ("queries", lambda rows: rows[0].update(relevant=[]), "'cred' has no text, or no image"),
        ("queries", lambda rows: rows[0].update(text=None), "'cred' has no text, or no image"),
        ("queries", lambda rows: rows[1].update(query_id="cred"), "1 query_id values"),
    ],
)
def test_rows_that_do_not_fit_are_named(
    squares: Path, rewrite: Callable[[Path, Change], None], table: str, change: Change, message: str
) -> None:
    rewrite(squares / f"{table}.parquet", change)
    with pytest.raises(InputError, match=message):
        benchmarks.read(squares)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"classification": {"colour": {"classes": ["red"]}}}, "classification.colour.classes"),
        ({"classification": {"colour": {"classes": ["a", "b"], "templates": ["no hole"]}}}, "no {} for the class"),
        ({"name": "x", "splitt": "test"}, "did you mean 'split'"),
    ],
)
def test_a_wrong_spec_names_its_key(squares: Path, spec: dict[str, Any], message: str) -> None:
    data = yaml.safe_load((squares / "benchmark.yaml").read_text())
    (squares / "benchmark.yaml").write_text(yaml.safe_dump({**data, **spec}))
    with pytest.raises(ConfigError, match=message):
        benchmarks.read(squares)


def test_a_benchmark_without_anything_to_measure_is_refused(squares: Path) -> None:
    (squares / "queries.parquet").unlink()
    assert benchmarks.read(squares).queries == ()
    (squares / "benchmark.yaml").write_text("name: squares\n")
    with pytest.raises(InputError, match="measures nothing"):
        benchmarks.read(squares)


def test_identity_follows_content_and_not_place(
    squares: Path, tmp_path: Path, rewrite: Callable[[Path, Change], None]
) -> None:
    before = benchmarks.content_digest(squares)
    moved = tmp_path / "elsewhere" / "squares"
    shutil.copytree(squares, moved)
    assert benchmarks.content_digest(moved) == before
    rewrite(moved / "labels.parquet", lambda rows: rows[5].update(colour="green"))
    assert benchmarks.content_digest(moved) != before
    (squares / "images" / "0-red-large.png").write_bytes(b"other")
    assert benchmarks.content_digest(squares) != before


def test_two_benchmarks_of_one_name_are_refused(squares: Path) -> None:
    with pytest.raises(InputError, match="two benchmarks are called 'squares'"):
        benchmarks.read_all([str(squares), str(squares)])
