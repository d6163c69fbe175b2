"""What the rule gadgets cost a caption on one core, with the passes that learn openers and count near-duplicates.

Honest captions of `curation_world` lie in memory as one shard. Time is that of the processor, and the best of a few
rounds: other work on the machine counts less so. Reading and writing of tables is in `curation_scale`.

    OMP_NUM_THREADS=1 python -m benchmarks.curation_rate --captions 70000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.curation_faults import make_draft
from benchmarks.curation_world import PROMPTS, captions
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.endings import Endings
from captioning.curate.corpus.openers import Openers
from captioning.curate.corpus.statistic import Statistic
from captioning.curate.gadget import Known
from captioning.curate.gadgets import make_gadgets
from captioning.curate.text_rules.phrases import load_phrases

WARM_UP = 700  # captions: libraries and the language model are loaded


def spent(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each step over all captions."""
    config, draft, seconds = CurateConfig(), make_draft(rows), dict[str, float]()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        found = work()
        seconds[name] = time.process_time() - started
        return found

    def counted(statistic: Statistic[Any]) -> Any:
        return statistic.merge(iter([statistic.of_shard(draft)]))

    openers = timed("learning openers", lambda: counted(Openers(config.clean, load_phrases(None).learn)))
    habits = timed("learning endings", lambda: counted(Endings()))
    for gadget in make_gadgets("texts", config, Known(openers=openers, habits=habits)):
        timed(gadget.name, partial(gadget.apply, draft))
    crowded = timed("counting near-duplicates", lambda: counted(config.boilerplate.statistic()))
    for gadget in make_gadgets("images", config, Known(crowded=crowded)):
        timed(gadget.name, partial(gadget.apply, draft))
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_rate", description=__doc__)
    parser.add_argument("--captions", type=int, default=70_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = captions(options.captions // len(PROMPTS))
    spent(rows[:WARM_UP])
    rounds = [spent(rows) for _ in range(options.rounds)]
    best = min(rounds, key=lambda seconds: sum(seconds.values()))
    print("| step | µs a caption |\n| --- | ---: |")
    for name, seconds in best.items():
        print(f"| {name} | {1e6 * seconds / len(rows):.1f} |")
    total = sum(best.values())
    print(f"| all | {1e6 * total / len(rows):.1f} |\n\n{len(rows) / total:,.0f} captions/s")


if __name__ == "__main__":
    main()
