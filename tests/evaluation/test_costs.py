"""What readouts cost: vectors and bytes are those of the features, and the report shows them beside recall."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from evaluation import benchmarks, report
from evaluation.config import EvaluateConfig
from evaluation.costs import Cost
from evaluation.encoder import Encoder
from evaluation.measure import evaluate
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from tests.evaluation.test_features import PREPROCESS
from training.model import HolisticCLIP, make_tokenizer


def test_costs_are_those_of_the_features(squares: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ("colour", "detail", "style")
    model = HolisticCLIP(TINY, names, text_pooling=True).eval()
    encoder = Encoder("run", "f", "w", model, PREPROCESS, make_tokenizer(TINY), names)
    config = EvaluateConfig(bootstrap_samples=100, device="cpu")
    found = evaluate(encoder, benchmarks.read(squares), config, Location.of(tmp_path / "cache"))
    costs: dict[str, Cost] = {cost.readout: cost for cost in found.shown["retrieval"].costs}
    vector = 4 * TINY["embed_dim"]
    patches = (16 // 8) ** 2
    assert {name: (cost.vectors, cost.bytes) for name, cost in costs.items()} == {
        "mean": (1, vector),
        "paper_mean": (1, vector),
        "max": (3, 3 * vector),
        "weighted": (1, vector),
        **{f"branch:{name}": (1, vector) for name in names},
        "rerank": (1 + patches, vector + patches * vector // 2),
    }
    assert all(cost.milliseconds > 0 for cost in costs.values())
    page = report.render([found], config, "f" * 64)
    assert "Quality against cost" in page
    rows = page.split("Quality against cost")[1].split("</table>")[0].split("<tr>")[2:]
    assert len(rows) == len(costs)
    mean = [m.value for m in found.measurements if (m.readout, m.metric) == ("max", "text_to_image_recall@1")]
    shown = next(row for row in rows if ">max<" in row)
    assert f'<span class="figure">{100 * sum(mean) / len(mean):.1f}</span>' in shown
    assert len(re.findall(r'<span class="interval">[\d.]+–[\d.]+</span>', shown)) == 2
    chart = page.split("Quality against cost")[1].split("</svg>")[0]
    assert len(re.findall(r"<title>run, [a-z_:]+: [\d.]+ % \([\d.]+ to [\d.]+\)", chart)) == len(costs)
    across = re.findall(r'<circle cx="([\d.]+)"', chart)
    assert len(set(across)) == len(costs), "no dot hides another"
