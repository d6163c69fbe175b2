"""Training measured on the GPU of this machine, in at most eight minutes, as one table.

    python -m benchmarks.gpu --out FOLDER
    python -m benchmarks.gpu --out FOLDER --device cpu --small     # a trial without a GPU: sizes mean nothing

FOLDER gets gpu.md and gpu.json. A section that fails says so in the table and ends no other; what the time does not
suffice for is said too. benchmarks/gpu.md says what has to be installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch

from benchmarks.gpu.sections import FULL, SECTIONS, SMALL, Bench, Found, bench

MINUTES = 7.0  # what is begun may take another


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write it; the status is 1 where a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes of a trial")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after these, nothing more is begun")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to measure")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; use --device cpu --small for a trial")
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * options.minutes
    rows: list[dict[str, Any]] = []
    with bench(torch.device(options.device), SMALL if options.small else FULL) as given:
        for name in options.only:
            for row in measured(name, SECTIONS[name], given, ends):
                rows.append(row)
                print(line(row), flush=True)
                write(options.out, rows)  # after each, so that a run that is cut short has what it found
    return int(any("failed" in row["figures"] for row in rows))


def measured(name: str, section: Callable[[Bench], Found], given: Bench, ends: float) -> Iterator[dict[str, Any]]:
    """A section's rows as they come; the last says what ended it early."""
    began = time.monotonic()
    try:
        found = section(given) if began < ends else iter(())
        for case, figures in found:
            yield {"section": name, "case": case, "figures": figures}
            if time.monotonic() > ends:
                break
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        yield {"section": name, "case": "the rest", "figures": {"failed": text}}
    if time.monotonic() > ends:
        yield {"section": name, "case": "the rest", "figures": {"left out": "the time was over"}}
    if given.device.type == "cuda":
        torch.cuda.empty_cache()
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    figures = "; ".join(f"{name} {shown(value)}" for name, value in row["figures"].items())
    return f"| {row['section']} | {row['case']} | {figures.replace('|', '/')} |"


def shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> dict[str, str]:
    """What was measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "device": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    facts = machine()
    (folder / "gpu.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1))
    head = (
        f"Measured by `python -m benchmarks.gpu` on {', '.join(f'{key} {value}' for key, value in facts.items())}.\n\n"
    )
    table = "\n".join(["| section | case | figures |", "| --- | --- | --- |", *map(line, rows)])
    (folder / "gpu.md").write_text(head + table + "\n")


if __name__ == "__main__":
    sys.exit(main())
