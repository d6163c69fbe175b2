"""The report: what it says first, its pictures, its tables as Markdown, and tables that a click sorts."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import pipeline
from evaluation import benchmarks, markdown, report, table, verdict
from evaluation.comparison import percent
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.intervals import MeanEstimate
from evaluation.measure import evaluate
from evaluation.stage import MARKDOWN
from evaluation.task import Evaluation, Measurement
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from tests.evaluation.test_features import PREPROCESS
from tests.evaluation.test_stage import evaluated
from training.model import HolisticCLIP, make_tokenizer

CONFIG = EvaluateConfig(bootstrap_samples=100, device="cpu")
QUESTIONS = 6  # two perspectives both ways, and two tasks


@pytest.fixture
def pair(squares: Path, tmp_path: Path) -> list[Evaluation]:
    """Two models on one benchmark."""
    benchmark, found = benchmarks.read(squares), []
    for seed, name in enumerate(("ours", "baseline")):
        torch.manual_seed(seed)
        model = HolisticCLIP(TINY, ("colour", "detail")).eval()
        encoder = Encoder(name, name, name, model, PREPROCESS, make_tokenizer(TINY), ("colour", "detail"))
        found.append(evaluate(encoder, benchmark, CONFIG, Location.of(tmp_path / "cache")))
    return found


def answering(evaluation: Evaluation, right: Sequence[str]) -> Evaluation:
    """The same with all questions of these metrics answered, and none of the others."""

    def told(found: Measurement) -> Measurement:
        outcome_N = np.full(found.estimate.n, any(found.metric.endswith(name) for name in right))
        return replace(found, estimate=MeanEstimate(outcome_N))

    return replace(evaluation, measurements=tuple(map(told, evaluation.measurements)))


def page_of(evaluations: Sequence[Evaluation]) -> str:
    page = report.render(evaluations, CONFIG, "0" * 32)
    return page.split("</style>")[1]


def test_no_zero_is_negative() -> None:
    assert (percent(-1e-5), percent(-0.0004, signed=True), percent(-0.004, signed=True)) == ("0.00", "+0.0", "−0.4")


def test_the_report_opens_with_where_a_model_is_worse(pair: Sequence[Evaluation]) -> None:
    ours, baseline = answering(pair[0], ["accuracy"]), answering(pair[1], ["recall@1"])
    opening = page_of([ours, baseline]).split('class="cards"')[0]
    said = " ".join(html.unescape(re.sub("<[^>]+>", "", opening)).split())
    assert "Of 6 questions, ours is worse than baseline on 4 (" in said
    assert "text to image recall@1 colour −100.0" in said
    assert "and better on 2 (macro accuracy colour +100.0, macro accuracy size +100.0); on 0" in said
    assert "ours is not clearly above chance on 4 of 6 questions (text to image recall@1 " in said
    assert "baseline is not clearly above chance on 2 of 6 questions" in said


def test_equal_models_are_neither_better_nor_worse(pair: Sequence[Evaluation]) -> None:
    twin = replace(pair[0], encoder=replace(pair[0].encoder, run="twin"))
    (found,) = verdict.verdicts(table.tables([pair[0], twin], CONFIG))
    assert (found.questions, found.worse.count, found.better.count, found.undecided) == (QUESTIONS, 0, 0, QUESTIONS)
    assert "of 6 questions, ours is worse than twin on none and better on none; on 6" in verdict.sentence(found)


def test_of_several_models_those_that_are_better_lead(pair: Sequence[Evaluation]) -> None:
    """In the order of the configuration, equal, weaker and stronger; each compared with the first."""
    ours = answering(pair[0], ["accuracy"])
    equal, weaker, stronger = (
        replace(answering(pair[0], right), encoder=replace(pair[0].encoder, run=name))
        for name, right in (("equal", ["accuracy"]), ("weaker", []), ("stronger", ["accuracy", "recall@1"]))
    )
    found = verdict.verdicts(table.tables([ours, equal, weaker, stronger], CONFIG))
    assert [(one.other, one.worse.count, one.better.count) for one in found] == [
        ("stronger", 4, 0),
        ("weaker", 0, 2),
        ("equal", 0, 0),
    ]
    text = markdown.render(table.tables([ours, equal, weaker, stronger], CONFIG), CONFIG, "0" * 32)
    assert text.index("ours is worse than stronger on 4 (") < text.index("ours is worse than weaker on none")


def test_a_model_alone_is_set_beside_chance_only(pair: Sequence[Evaluation]) -> None:
    tables = table.tables([answering(pair[0], [])], CONFIG)
    assert verdict.verdicts(tables) == []
    (found,) = verdict.blind(tables)
    assert (found.run, found.count, found.questions) == ("ours", QUESTIONS, QUESTIONS)


def test_hits_and_misses_are_pictured_as_they_are(pair: Sequence[Evaluation]) -> None:
    queries = re.findall(r'<div class="query">(.*?)</div>\n</div>\n', page_of(pair), re.DOTALL)
    outcomes = [re.findall(r">(hit|miss)</b>", query) for query in queries]
    assert ["miss"] in outcomes
    assert ["hit"] in outcomes
    for query, (outcome,) in zip(queries, outcomes, strict=True):
        assert ("would be right" in query) == (outcome == "miss")
        first, other = query.split('<div class="who">')[1:]
        assert ('class="right"' in re.findall("<img [^>]*>", first)[0]) == (outcome == "hit")
        assert len(re.findall("<img ", first)) == len(re.findall("<img ", other)) == 6


def test_pictures_of_classes_show_what_each_model_says(pair: Sequence[Evaluation], squares: Path) -> None:
    page = page_of(pair).split("<h2>Recognised and mistaken</h2>")[1].split("<h2>")[0]
    task, size = (part for part in page.split("<details")[1:])
    assert "<summary>colour</summary>" in task
    assert "<summary>size</summary>" in size
    pictures = re.findall(r"<figure>(.*?)</figure>", task, re.DOTALL)
    assert {outcome for p in pictures for outcome in re.findall(r'class="(hit|miss)"', p)} == {"hit", "miss"}
    labels = {row["file"]: row["colour"] for row in pq.read_table(squares / "labels.parquet").to_pylist()}
    for picture in pictures:
        (file,), (outcome,) = re.findall('title="(.*?)"', picture), re.findall(r'class="(hit|miss)"', picture)
        (actual,), said = (
            re.findall("<figcaption>(.*?)<", picture),
            re.findall("<span(?: class=.worse.)?>(.+?)<", picture),
        )
        assert actual == labels[file]
        assert len(said) == len(pair)
        assert (said[0] == actual) == (outcome == "hit")


def test_markdown_has_the_figures_of_the_tables(squares: Path, tmp_path: Path) -> None:
    manifest = evaluated(tmp_path, squares)
    text = (Location.of(manifest.store) / MARKDOWN).read().decode()
    assert manifest.select(MARKDOWN), "it is a part of the result"
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 2 + 3, "of each task, and by readout: accuracy, and recall both ways"
    for found in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in found.splitlines()}) == 1
    rows = pq.read_table(Path(manifest.store) / "results.parquet").to_pylist()
    for row in rows:
        if row["readout"] == "mean" and row["run"] == "two" and row["metric"].endswith("recall@1"):
            begins = f"| {row['query']} | {row['metric'].replace('_', ' ')} |"
            line = next(line for line in text.splitlines() if line.startswith(begins))
            shown = f"{percent(row['value'])} ({percent(row['ci_low'])} to {percent(row['ci_high'])})"
            assert shown in line


def test_markdown_escapes_what_comes_from_outside(pair: Sequence[Evaluation]) -> None:
    evil = replace(pair[0], encoder=replace(pair[0].encoder, run="a|b <script>\n# [c](d)"))
    text = markdown.render(table.tables([evil, pair[1]], CONFIG), CONFIG, "0" * 32)
    assert "<script" not in text
    assert "\n# \\[c" not in text
    assert "| a\\|b &lt;script&gt; # \\[c](d) |" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_click_on_a_heading_sorts(tmp_path: Path) -> None:
    """Numbers from the largest, then from the smallest, each tbody apart; a heading inside a body stays first."""
    script = (Path(pipeline.__file__).parent / "templates" / "sort.js").read_text()
    cells = {"b": "−3.5", "c": "1,200", "a": "20.0", "d": ""}
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in cells.items())
    heading = '<tr><th colspan="2">question</th></tr>'
    page = tmp_path / "page.html"
    page.write_text(
        f"<meta charset=utf-8><table><thead><tr><th>name</th><th>value</th></tr></thead><tbody>{rows}</tbody><tbody>"
        f"{heading}{rows}</tbody></table><script>{script}</script><script>const told = [];"
        "for (const column of [1, 1, 0]) { document.querySelectorAll('thead th')[column].click();"
        "told.push([...document.querySelectorAll('tbody')].map(body => [...body.rows].map(row =>"
        "row.cells[0].textContent[0]).join('')).join(' ')); } document.title = told.join(', ');</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert re.findall("<title>(.*?)</title>", done.stdout) == ["cabd qcabd, dbac qdbac, abcd qabcd"]
