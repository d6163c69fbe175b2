"""What models answer about the training scenes, as tables that any machine can import.

Rows of the study read these tables instead of asking the models, so a machine without vLLM can train them, and all
rows see the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioning.store import shard_captions
from flows.cli import main as holism
from flows.run import Session
from pipeline.errors import HolismError

COLUMNS = ("key", "text", "perspective", "granularity")


def ask(root: Path, model: str, name: str, overrides: Sequence[str] = ()) -> Path:
    """Ask a model the paper's questions about the scenes of training; the table of its answers, made once.

    `overrides` (`caption.paraphrases=rotate`) say how.
    """
    out = root / "captions" / f"{name}.parquet"
    if out.exists():
        return out
    config: dict[str, Any] = {
        "workspace": str(root / "captions" / f"{name}-workspace"),
        "ingest": {"source": {"kind": "webdataset", "path": str(root / "world" / "train")}},
        "caption": {"models": [model], "prompts": {"set": "paper"}},
    }
    path = root / "configs" / f"captions-{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1))
    sets = [word for item in overrides for word in ("--set", item)]
    if holism(["run", str(path), "--stages", "ingest,caption", *sets]):
        raise HolismError(f"the study stopped at the captions of {model}; mend what is said above and run this again")
    found = Session.open(str(path), overrides).resolve()
    images, answers = found["ingest"].manifest, found["caption"].manifest
    assert images is not None
    assert answers is not None
    shards = [_answers(shard_captions(answers, shard)) for shard in sorted(images.detail["shards"])]
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.concat_tables(shards), out, compression="zstd")
    return out


def _answers(captions: pa.Table) -> pa.Table:
    """Of the captions of a shard, what could be answered; words as plain text."""
    answered = captions.filter(pc.equal(captions["status"].cast(pa.string()), "ok"))
    return pa.table({name: answered[name].cast(pa.string()) for name in COLUMNS})
