"""CxC and ECCV positives of COCO: figures are those of the package, or of plain definitions in its place."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation import benchmarks, coco_positives, report, table
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig, SuiteAt
from evaluation.contents import Spec, caption_queries
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark
from evaluation.measure import evaluate
from evaluation.task import Subject
from evaluation.tasks import asking
from evaluation.tasks.retrieval_more_positives import ABSENT, TASK
from pipeline import identity
from pipeline.storage import Location
from tests.evaluation import data_sets, plain_eccv_caption
from tests.evaluation.test_features import NAMES, PREPROCESS, TINY
from training.model import HolisticCLIP, make_tokenizer

CONFIG = EvaluateConfig(bootstrap_samples=100, device="cpu", readouts=("mean",))
THEIRS = {"recall@1": "r1", "r_precision": "rprecision", "map_at_r": "map_at_r"}
WAYS = {"text_to_image": "t2i", "image_to_text": "i2t"}
DEPTH = 60  # more than any query of the package has right answers


@pytest.fixture
def in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name, with positives of the fixture's pictures."""
    monkeypatch.setitem(sys.modules, coco_positives.PACKAGE, plain_eccv_caption)


@pytest.fixture
def of_the_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture's pictures count as Karpathy's test images."""
    monkeypatch.setattr(coco_positives, "KARPATHY_TEST", identity.digest(sorted(plain_eccv_caption.IMAGES)))


def subject_of(metrics: Any) -> Subject:
    """Images and captions of the package in an order of their own, a caption more than it knows, and found vectors."""
    generator = torch.Generator().manual_seed(0)
    images = sorted(metrics.coco_gts["i2t"])
    captions = [
        [*sorted(metrics.coco_gts["i2t"][image]), *([10**9] if image == images[1] else [])] for image in images
    ]
    texts = [[f"caption {number}" for number in of_image] for of_image in captions]
    queries = caption_queries(texts, "all_captions", captions)
    image_ND = F.normalize(torch.randn(len(images), 16, generator=generator), dim=-1)
    noise_TD = F.normalize(torch.randn(len(queries.texts), 16, generator=generator), dim=-1)
    text_TD = F.normalize(image_ND[queries.pair_image_P] + 2 * noise_TD, dim=-1)
    files = tuple(map(str, images))
    benchmark = Benchmark(Spec(name="coco"), "d", files, (), {}, (queries,), coco_ids=tuple(images))
    features = EncodedBenchmark(image_ND[:, None], text_TD, {text: i for i, text in enumerate(queries.texts)}, None)
    return Subject(Encoder("run", "f", "w", None, None, None, ("all",)), benchmark, features, CONFIG)


def ranked(query_ids: Any, ids: list[int], query_QD: Tensor, candidates: list[int], candidate_CD: Tensor) -> Any:
    """Candidate ids of each query, the best first."""
    place = {number: i for i, number in enumerate(ids)}
    query_ids = sorted(query_ids)
    score_QC = query_QD[[place[query] for query in query_ids]] @ candidate_CD.T
    best_QK = score_QC.topk(min(DEPTH, len(candidates))).indices.tolist()
    return {query: [candidates[i] for i in row] for query, row in zip(query_ids, best_QK, strict=True)}


def assert_agreement(metrics: Any) -> None:
    subject = subject_of(metrics)
    assert asking(subject.benchmark)[-1] is TASK
    measurements, shown = TASK.measure(subject)
    assert shown.why_not == ""
    ours = {(one.query, one.metric): one.value for one in measurements}
    images, captions = list(subject.benchmark.coco_ids), sorted(metrics.coco_gts["t2i"])
    image_ND = subject.features.branch_NHD[:, 0]
    text_TD = subject.features.texts([f"caption {number}" for number in captions])
    asked = {way: {*metrics.cxc_gts[way], *metrics.eccv_gts[way]} for way in WAYS.values()}
    i2t = ranked(asked["i2t"], images, image_ND, captions, text_TD)
    t2i = ranked(asked["t2i"], captions, text_TD, images, image_ND)
    wanted = [f"eccv_{name}" for name in THEIRS.values()]
    theirs = metrics.compute_all_metrics(i2t, t2i, target_metrics=[*wanted, "cxc_r1"])
    expected = {
        ("eccv", f"{way}_{metric}"): theirs[f"eccv_{name}"][WAYS[way]]
        for way in WAYS
        for metric, name in THEIRS.items()
    }
    expected |= {("cxc", f"{way}_recall@1"): theirs["cxc_r1"][WAYS[way]] for way in WAYS}
    assert {key: ours[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    metrics.eccv_gts = metrics.cxc_gts  # which the package itself measures by recall alone
    theirs = metrics.compute_all_metrics(i2t, t2i, target_metrics=wanted)
    for way in WAYS:
        for metric, name in THEIRS.items():
            assert ours["cxc", f"{way}_{metric}"] == pytest.approx(theirs[f"eccv_{name}"][WAYS[way]], abs=1e-6)
    assert len(measurements) == 12
    assert sum(0 < one.chance < one.value < 1 for one in measurements) >= 6, "figures that could have been wrong"


@pytest.mark.usefixtures("in_its_place", "of_the_fixture")
def test_figures_are_those_of_plain_definitions() -> None:
    assert_agreement(plain_eccv_caption.Metrics())


def test_figures_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its real candidates; of some queries, for time."""
    package = pytest.importorskip("eccv_caption", reason="the package eccv_caption is not installed")
    metrics, found = package.Metrics(), package.Metrics()
    for one in (metrics, found):
        for pairs in (one.cxc_gts, one.eccv_gts):
            for way, answers in pairs.items():
                pairs[way] = dict(list(answers.items())[:100])
    monkeypatch.setattr(coco_positives, "_metrics", lambda: found)
    assert_agreement(metrics)


@pytest.mark.usefixtures("in_its_place", "of_the_fixture")
def test_captions_that_are_not_here_are_told() -> None:
    subject = subject_of(plain_eccv_caption.Metrics())
    (asked,) = subject.benchmark.queries
    renamed = replace(asked, coco_ids=(7, 8, *asked.coco_ids[2:]))
    measurements, shown = TASK.measure(replace(subject, benchmark=replace(subject.benchmark, queries=(renamed,))))
    assert measurements == []
    assert shown.why_not == "CxC and ECCV positives are not measured: 2 of their captions are not here."


def measured(root: Path) -> tuple[dict[tuple[str, ...], float], str, Benchmark]:
    """All figures of a small model on the fixture, and the page."""
    torch.manual_seed(0)
    encoder = Encoder("run", "f", "w", HolisticCLIP(TINY, NAMES).eval(), PREPROCESS, make_tokenizer(TINY), NAMES)
    benchmark = benchmarks.read(SuiteAt(suite="coco_karpathy_5k", root=str(root)))
    found = evaluate(encoder, benchmark, CONFIG, Location.of(root.parent / "cache"))
    rows = table.rows([found], CONFIG)
    values = {(row["protocol"], row["readout"], row["query"], row["metric"]): row["value"] for row in rows}
    return values, report.render([found], CONFIG, "f" * 64), benchmark


@pytest.mark.usefixtures("of_the_fixture")
def test_without_the_package_the_report_says_so_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    data_sets.WRITERS["coco_karpathy_5k"](tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(coco_positives, "find_spec", lambda _: None)
        without, page, benchmark = measured(tmp_path / "data")
        assert page.count(ABSENT) == 1
    request.getfixturevalue("in_its_place")
    values, page, more = measured(tmp_path / "data")
    assert ABSENT not in page
    assert "With more right answers, text to image" in page
    new = {key for key in values if key[0] == "coco_karpathy_5k/eccv_caption"}
    assert {key: value for key, value in values.items() if key not in new} == without
    assert len(new) == 12
    assert more.digest != benchmark.digest, "what was evaluated before is not all that is asked now"
    assert more.shown == benchmark.shown, "and nothing is encoded again"


def test_other_images_are_not_asked(tmp_path: Path) -> None:
    data_sets.WRITERS["coco_karpathy_5k"](tmp_path)
    benchmark = benchmarks.read(SuiteAt(suite="coco_karpathy_5k", root=str(tmp_path)))
    assert TASK not in asking(benchmark)
