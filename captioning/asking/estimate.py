"""What the caption stage would compute: how many captions, tokens and hours, before anything is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from captioning import store
from captioning.asking.cells import Cell
from captioning.asking.missing import Demand
from captioning.config import CaptionConfig
from captioning.importing import tables
from pipeline.commits import Part
from pipeline.manifest import Manifest
from pipeline.summary import counted
from pipeline.workspace import Workspace

HOUR = 3600


def preview(config: CaptionConfig, inputs: Mapping[str, Manifest], workspace: Workspace) -> list[str]:
    """Lines for `holism plan`: by model the captions that are missing, their output tokens, and the time they take.

    Tokens are the mean of each prompt's answers in the store, or its budget where there are none yet. Time goes by
    the rate that the workspace's newest run of this model reached.
    """
    demand = Demand.of(config, inputs["ingest"], workspace.folder("caption"))
    lines = tables.preview(config.tables, inputs["ingest"], workspace.folder("caption"))
    for model in demand.models:
        own = demand.of_model(model)
        missing = _missing(demand, own, config.chunk_images)
        captions = sum(missing.values())
        if not captions:
            lines.append(f"{model.name}: nothing is missing")
            continue
        tokens, measured = _tokens(missing, own, list(demand.parts.values()))
        rate = _rate(workspace, model.name)
        prompts = len({cell.prompt.id for cell in own if missing.get(cell.id)})
        lines.append(
            f"{model.name}: {counted(captions, 'caption')} by {counted(prompts, 'prompt')}, "
            f"{'about' if measured else 'at most'} {counted(tokens, 'output token')}; {_time(captions, rate)}"
        )
    return lines


def _missing(demand: Demand, cells: Sequence[Cell], chunk_images: int) -> dict[str, int]:
    """Captions that are missing, by cell."""
    missing: Counter[str] = Counter()
    ids = {shard.name: images for shard, images in zip(demand.shards, demand.ids, strict=True)}
    for item in demand.work(cells, chunk_images, retry_failed=False):
        if item.captions == len(item.rows) * len(item.cells):
            missing.update(dict.fromkeys(item.cells, len(item.rows)))
            continue
        for row in item.rows:  # each is asked its share
            asked = demand.shares.asked(ids[item.shard.name][row].ljust(16, b"\0").hex())
            missing.update(cell.id for cell in asked if cell.id in item.cells)
    return dict(missing)


def _tokens(missing: Mapping[str, int], cells: Sequence[Cell], parts: Sequence[Part]) -> tuple[int, bool]:
    """Output tokens of what is missing, and whether all of that goes by answers that are there."""
    total, measured = 0.0, True
    for cell in cells:
        if cell.container is not None:
            continue  # paid for with the structured answer
        counts = [count for part in parts for count in store.figures_of(part, [cell.id]).values()]
        answers = sum(count["captions"] for count in counts)
        mean = sum(count["output_tokens"] for count in counts) / answers if answers else cell.max_tokens
        measured = measured and bool(answers)
        total += mean * missing.get(cell.id, 0)
    return round(total), measured


def _rate(workspace: Workspace, model: str) -> float | None:
    """Captions per second of the newest run that made some with this model."""
    for manifest in workspace.manifests("caption"):
        if rate := manifest.counts.get("rate_by_model", {}).get(model):
            return float(rate)
    return None


def _time(captions: int, rate: float | None) -> str:
    if rate is None:
        return "no run of it has been measured in this workspace yet"
    return f"{captions / rate / HOUR:,.2g} hours at the {rate:,.4g} captions/s of its last run"
