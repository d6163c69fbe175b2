"""Benchmark folders: what is in them, what is missing, and their identity."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from evaluation import benchmarks
from evaluation.config import EvaluateConfig
from evaluation.measure import needs_of
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
    texts = needs_of(found, EvaluateConfig()).texts
    assert len(texts) == len(set(texts)) == 3 + 12 + 6 + 2


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
        ("labels", lambda rows: rows[3].update(file=None), "column 'file' holds no texts in row 4"),
        ("labels", lambda rows: [row.update(file=n) for n, row in enumerate(rows)], "'file' holds a number"),
        ("labels", lambda rows: [row.update(size=n) for n, row in enumerate(rows)], "'10' is no class of task 'size'"),
        ("labels", lambda rows: [row.update(size=0.5) for row in rows], "'size' holds 0.5, expected the name"),
        ("labels", lambda rows: [row.update(size=b"caf\xe9") for row in rows], "'size' holds bytes that are neither"),
        ("queries", lambda rows: [row.update(text=b"caf\xe9") for row in rows], "'text' holds bytes that are neither"),
        ("queries", lambda rows: rows[0].update(query_id=None), "'query_id' holds null, expected an id in each row"),
        ("labels", lambda rows: [row.update(size=True) for row in rows], "'size' holds true or false"),
        ("labels", lambda rows: [row.update(size=["small", "large"]) for row in rows], "'size' holds a list"),
        ("queries", lambda rows: rows[0].update(text="  "), "'cred' has no text, or no image"),
        ("queries", lambda rows: [row.update(text=7) for row in rows], "'text' holds a number, expected texts"),
        ("queries", lambda rows: [row.update(text={"en": "a"}) for row in rows], "'text' holds an object"),
        ("queries", lambda rows: rows[0].update(relevant=[None]), "'cred' has no text, or no image"),
        ("queries", lambda rows: [row.update(relevant=[1]) for row in rows], "'relevant' holds a number"),
        ("queries", lambda rows: rows[0].update(perspective=None), "'perspective' holds no texts in row cred"),
        ("queries", lambda rows: [row.update(perspective=3) for row in rows], "'perspective' holds a number"),
    ],
)
def test_rows_that_do_not_fit_are_named(
    squares: Path, rewrite: Callable[[Path, Change], None], table: str, change: Change, message: str
) -> None:
    rewrite(squares / f"{table}.parquet", change)
    for look in (benchmarks.check, benchmarks.read):
        with pytest.raises(InputError, match=message):
            look(squares)


def respec(folder: Path, classes: list[str]) -> None:
    """Give the task `size` other classes."""
    data = yaml.safe_load((folder / "benchmark.yaml").read_text())
    data["classification"]["size"]["classes"] = classes
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(data))


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (["small", "large"], [1, 0, None], [1, 0, -1]),
        (["small", "large"], [1.0, 0.0, float("nan")], [1, 0, -1]),
        (["small", "small"], [1, 0, None], [1, 0, -1]),
        (["3", "5", "7"], [7, 3, 5], [2, 0, 1]),
        (["1", "2", "3"], [0, 1, 2], [0, 1, 2]),
        (["small", "large"], [b"large", b"small", b""], [1, 0, -1]),
        (["small", "large"], [" large", "small", " "], [1, 0, -1]),
        (["caf\u00e9", "bar\u0301"], ["cafe\u0301", "ba\u0155", None], [0, 1, -1]),
    ],
)
def test_labels_are_names_of_classes_or_their_numbers(
    squares: Path, rewrite: Callable[[Path, Change], None], classes: list[str], labels: list[Any], expected: list[int]
) -> None:
    respec(squares, classes)
    rewrite(squares / "labels.parquet", lambda rows: [r.update(size=labels[n % 3]) for n, r in enumerate(rows)])
    assert benchmarks.read(squares).labels["size"].tolist() == expected * 4


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (["small", "small", "large"], ["small", "large"], "'small' twice among its classes, and labels go by name"),
        (["1", "2", "3"], [1, 2], "label 1 of task 'size' can be the class '1' or the class at place 1 .* '2'"),
        (["small", "large"], [-1, 0], "'-1' is no class"),
    ],
)
def test_labels_that_could_mean_two_classes_are_refused(
    squares: Path, rewrite: Callable[[Path, Change], None], classes: list[str], labels: list[Any], message: str
) -> None:
    respec(squares, classes)
    rewrite(squares / "labels.parquet", lambda rows: [r.update(size=labels[n % 2]) for n, r in enumerate(rows)])
    with pytest.raises(InputError, match=message):
        benchmarks.check(squares)


def test_a_list_of_texts_is_a_query_each_and_relevant_may_be_one_text(
    squares: Path, rewrite: Callable[[Path, Change], None]
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        del rows[:3]
        for number, row in enumerate(rows):
            row.update(text=[f"first {number}", None, f"second {number}"], relevant=row["relevant"][0])

    rewrite(squares / "queries.parquet", change)
    (found,) = benchmarks.read(squares).queries
    assert found.texts[:4] == ("first 0", "second 0", "first 1", "second 1")
    assert found.pair_image_P.tolist() == [image for image in range(12) for _ in range(2)]


def test_names_of_files_match_however_they_are_written(squares: Path, rewrite: Callable[[Path, Change], None]) -> None:
    (squares / "images" / "sub").mkdir()
    (squares / "images" / "0-red-small.png").rename(squares / "images" / "sub" / unicodedata.normalize("NFD", "é.png"))
    rewrite(squares / "labels.parquet", lambda rows: rows[0].update(file="sub\\é.png"))
    rewrite(squares / "queries.parquet", lambda rows: [r.update(relevant=["./sub/é.png"]) for r in rows])
    found = benchmarks.read(squares)
    assert found.image(0).exists()
    assert not found.queries[0].pair_image_P.any()


def test_what_is_true_for_an_image_is_true_for_its_copies(squares: Path) -> None:
    """The first and the last file are the same picture; each has a query of its own."""
    images, files = squares / "images", benchmarks.read(squares).files
    shutil.copy(images / files[0], images / files[11])
    found = benchmarks.read(squares)
    assert found.copies == {11: 0}
    _, detail = found.queries
    right = np.zeros((12, 12), bool)
    right[detail.pair_text_P, detail.pair_image_P] = True
    expected = np.eye(12, dtype=bool)
    expected[0, 11] = expected[11, 0] = True
    assert (right == expected).all()
    assert len(detail.pair_text_P) == 14, "no pair is there twice"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": ""}, "'name' is '': expected text that is not empty"),
        ({"classification": {"colour": {"classes": ["red", " "]}}}, "a class has no name"),
        (
            {"classification": {"colour": {"classes": [7, 8]}}},
            "7 is no text; write names of classes in quotes",
        ),
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
    before = benchmarks.check(squares)
    moved = tmp_path / "elsewhere" / "squares"
    shutil.copytree(squares, moved)
    assert benchmarks.check(moved) == before
    rewrite(moved / "labels.parquet", lambda rows: rows[5].update(colour="green"))
    assert benchmarks.check(moved) != before
    (squares / "images" / "0-red-large.png").write_bytes(b"other")
    assert benchmarks.check(squares) != before


def test_two_benchmarks_of_one_name_are_refused(squares: Path) -> None:
    with pytest.raises(InputError, match="two benchmarks are called 'squares'"):
        benchmarks.read_all([str(squares), str(squares)])
