"""What is measured of each step: kept on the device until somebody looks, as every look waits for the device."""

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.batches import Batch
from training.config import RunConfig
from training.flops import Utilisation
from training.health import branch_health
from training.losses import Features, Loss
from training.ranks import Ranks

COUNTS = ("unreadable", "tokens")  # summed over ranks; all other figures are means


class Figures:
    """The figures of the steps since the last look."""

    def __init__(
        self, config: RunConfig, branches: Sequence[str], ranks: Ranks, utilisation: Utilisation | None = None
    ) -> None:
        self.unreadable = 0  # decodings that failed, up to the last look
        self._config, self._branches, self._ranks = config, branches, ranks
        self._utilisation = utilisation  # of GPUs whose speed is known
        self._pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = []

    def measure(self, batch: Batch, features: Features, loss: Loss, norm: Tensor) -> dict[str, Tensor]:
        """The loss, by term and by term and slot, the branches' health, and what of the batch only its rank knows."""
        known = [float(len(batch.unreadable)), float(sum(text_TL.numel() for text_TL in batch.texts))]
        if self._utilisation:
            known.append(self._utilisation.flops(batch.pictures, batch.texts) / 1e12)
        of_rank = dict(zip((*COUNTS, "tflop"), torch.tensor(known, device=self._ranks.device), strict=False))
        measured = {"grad_norm": norm, "logit_scale": features.scale.detach(), "loss": loss.total.detach()}
        measured |= {f"loss/{term}": value for term, value in loss.terms.items()}
        for term, slot_M in loss.by_slot.items():
            names = (slot.name for slot in self._config.slots)
            measured |= {f"loss/{term}/{name}": value for name, value in zip(names, slot_M, strict=True)}
        if features.negative_slot_BN is not None:
            found = (features.negative_slot_BN >= 0).sum()
            measured["hard_negatives"] = found * features.ranks / len(features.mask_NM)
        measured |= branch_health(features, self._branches, self._config.losses)
        measured |= of_rank
        return {name: value.float() for name, value in measured.items()}

    def add(self, row: dict[str, Any], measured: dict[str, Tensor]) -> None:
        """A step: what the host knows of it, and what is still on the device."""
        self._pending.append((row, measured))

    def look(self) -> list[dict[str, Any]]:
        """Rows of the steps since the last look, means over ranks, in one transfer from the device."""
        if not self._pending:
            return []
        names = list(self._pending[0][1])
        table = torch.stack([torch.stack([measured[name] for name in names]) for _, measured in self._pending])
        figures = self._ranks.mean(table).tolist()
        rows = [
            {**row, **dict(zip(names, of_step, strict=True))}
            for (row, _), of_step in zip(self._pending, figures, strict=True)
        ]
        self._pending.clear()
        for row in rows:
            row.update({name: round(row[name] * self._ranks.count) for name in COUNTS})
            self.unreadable += row["unreadable"]
            row["unreadable"] = self.unreadable
            row["img_per_s"] = round(self._config.global_batch / row["seconds"], 1)
            if self._utilisation:
                row["mfu"] = round(row.pop("tflop") * 1e12 / row["seconds"] / self._utilisation.peak, 4)
        return rows


def not_a_number(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """The first row whose loss or gradient is none, and what of it; None where all are.

    A gradient that is no number has made the weights none, though the loss before it was one.
    """
    for row in rows:
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
            if not math.isfinite(row[name]):
                return f"the {what} is {row[name]} at step {row['step']}", row
    return None


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for the log: the loss of a slot that held no caption in the batch is None."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def note(rows: Sequence[Mapping[str, Any]]) -> str:
    """The end of the progress line; rate and ETA are the line's own."""
    last, seconds = rows[-1], max(sum(row["seconds"] for row in rows), 1e-9)
    waiting = 100 * sum(row["wait"] for row in rows) / seconds
    tokens = sum(row["tokens"] for row in rows) / seconds
    mfu = sum(row["mfu"] * row["seconds"] for row in rows) / seconds if "mfu" in last else None
    return (
        f"epoch {last['epoch']:.1f} loss {last['loss']:.3f} lr {last['lr']:.1e} {_thousands(tokens)} tokens/s "
        f"data wait {waiting:.0f} %{'' if mfu is None else f' MFU {100 * mfu:.0f} %'} memory {memory_gib():.1f} GiB"
    )


def memory_gib() -> float:
    """The most that this process had: of the GPU's memory where it has one, else of the machine's."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _thousands(count: float) -> str:
    return f"{count / 1000:,.0f}k" if count >= 10_000 else f"{count:,.0f}"
