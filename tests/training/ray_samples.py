"""What ranks on Ray really trained with: a service that notes it down, wherever it is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

HELD_AFTER = 12
Step = list[list[Any]]  # its samples: image id, digest of picture and crop, captions as tokens by slot


class Notes:
    """Has every step of this process, and of each that it is sent to, written down before it is made.

    While the file `hold` is there, each process makes at most so many steps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, model: Any, step: int) -> None:
        """A service of the stage, called after checkpoints."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.take()

    def take(self) -> None:
        from training import trainer

        original = trainer._step
        if hasattr(original, "notes"):
            return

        def step(run: Any, batch: Any) -> Any:
            self.write(run, batch)
            self.made += 1
            while self.made > HELD_AFTER and (self.folder / "hold").exists():
                time.sleep(0.1)
            return original(run, batch)

        step.notes = self  # type: ignore[attr-defined]
        trainer._step = step

    def write(self, run: Any, batch: Any) -> None:
        group, ranks = os.environ.get("MASTER_PORT", "alone"), run.ranks
        line = {
            "run": run.name,
            "step": batch.step,
            "rank": ranks.rank,
            "ranks": ranks.count,
            "samples": samples_of(run, batch),
        }
        with (self.folder / f"{group}-{ranks.rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        files = sorted(self.folder.glob("*.jsonl"))
        return [
            {**json.loads(line), "group": file.stem.rpartition("-")[0]}
            for file in files
            for line in file.read_text().splitlines(keepends=True)
            if line.endswith("\n")  # whoever wrote it may have been killed
        ]

    def steps(self, run: str) -> dict[int, list[tuple[int, Step]]]:
        """For each step of a run, by each group that made all of it: how many ranks, and the samples."""
        shares: dict[tuple[int, str], dict[int, Step]] = defaultdict(dict)
        counts: dict[str, int] = {}
        for line in (line for line in self.lines() if line["run"] == run):
            shares[line["step"], line["group"]][line["rank"]] = line["samples"]
            counts[line["group"]] = line["ranks"]
        found: dict[int, list[tuple[int, Step]]] = defaultdict(list)
        for (step, group), by_rank in sorted(shares.items()):
            if len(by_rank) == counts[group]:
                samples = [sample for rank in sorted(by_rank) for sample in by_rank[rank]]
                found[step].append((counts[group], samples))
        return found


def samples_of(run: Any, batch: Any) -> Step:
    texts = [row[row != 0].tolist() for group in batch.texts for row in group]
    slots = batch.mask_BM.shape[1]
    captions: list[dict[int, Any]] = [{} for _ in batch.mask_BM]
    for place, text in zip(batch.place_P.tolist(), batch.text_P.tolist(), strict=True):
        captions[place // slots][place % slots] = texts[text]
    ids = []
    for sample in run.batches.share(batch.step).samples.tolist():
        piece, row = run.batches.bundles.sample(sample)
        ids.append(piece.image_id[row].as_py())
    assert len(ids) == len(captions)
    return [
        [ids[b], _digest(batch.image_BCSS[b], batch.box_B4[b]), sorted(captions[b].items())] for b in range(len(ids))
    ]


def _digest(*tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
