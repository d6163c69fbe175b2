"""What came out of training, in lines."""

from collections.abc import Mapping
from typing import Any

from pipeline.manifest import Manifest
from pipeline.summary import counted, number


def describe(manifest: Manifest) -> list[str]:
    """A line for each run: its length, and its loss from the first step to the last, by term."""
    runs = [f"{name}: {_run(summary)}" for name, summary in manifest.counts.items()]
    return runs if len(runs) == 1 else [counted(len(runs), "run"), *runs]


def _run(summary: Mapping[str, Any]) -> str:
    first = f"{summary['first_loss']:.3f} → " if "first_loss" in summary else ""
    terms = ", ".join(f"{term} {value:.3f}" for term, value in summary.get("terms", {}).items())
    return (
        f"{counted(summary['steps'], 'step')}, {counted(summary['images seen'], 'image')} seen, "
        f"loss {first}{summary['loss']:.3f}{f' ({terms})' if terms else ''}, "
        f"logit scale {number(summary['logit_scale'])}{_best(summary)}"
    )


def _best(summary: Mapping[str, Any]) -> str:
    if "best" not in summary:
        return ""
    best = summary["best"]
    return f", best {best['figure']} {best['value']:.3f} after step {best['step']}"
