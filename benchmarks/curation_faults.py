"""Precision and recall of the rule gadgets on planted faults, and what each gadget costs.

20,000 honest captions (`curation_world`) get faults (`curation_plants`), one image at most one of them, and go through
the gadgets in their order. A fault is found when its gadget drops the caption, or cleans it to what it should be. An
honest caption that a gadget drops or changes counts against that gadget.

    python -m benchmarks.curation_faults --captions 20000
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.curation_plants import Fault, faults, held_out, silent_faults, tell_honest
from benchmarks.curation_world import PROMPTS, captions
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.endings import Endings
from captioning.curate.corpus.openers import Openers
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Known
from captioning.curate.gadgets import make_gadgets
from captioning.curate.gadgets.boilerplate import Boilerplate
from captioning.curate.gadgets.duplicates import Duplicates
from captioning.curate.gadgets.language import Language
from captioning.curate.text_rules.phrases import load_phrases
from pipeline.config import build

# 20,000 captions are a small corpus: what is boilerplate of millions of images is boilerplate of some hundred here;
# and a near-duplicate is only dropped where it is not the last caption of its perspective, unless coverage is off.
CONFIG = {"boilerplate": {"max_images": 150}, "coverage": False}


@dataclass(frozen=True)
class Planted:
    """A fault in one row, and the text that should come of it (None: dropped)."""

    fault: Fault
    row: dict[str, Any]
    expected: str | None


def plant(
    rows: Sequence[dict[str, Any]], kinds: Sequence[Fault], seed: int, spared: frozenset[str]
) -> dict[str, Planted]:
    """Plant every fault in images of its own, but for those `spared`; planted rows by caption_id."""
    rng = Random(seed)
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_image[row["key"]].append(row)
    keys = sorted(set(by_image) - spared)
    rng.shuffle(keys)
    scale = len(keys) * len(PROMPTS) / 20_000
    planted = {}
    for fault in kinds:
        for _ in range(round(fault.count * scale)):
            row = _fitting(by_image, keys, fault, rng)
            planted[row["caption_id"]] = Planted(fault, row, fault.plant(row, rng))
    return planted


def _fitting(by_image: dict[str, list[dict[str, Any]]], keys: list[str], fault: Fault, rng: Random) -> dict[str, Any]:
    """A row, of an image that has no fault yet, that this fault fits."""
    prompt = rng.choice(fault.prompts)
    for position in range(len(keys) - 1, -1, -1):
        row = next(row for row in by_image[keys[position]] if row["prompt"] == prompt)
        if fault.fits(row["text"]):
            del keys[position]
            return row
    raise SystemExit("there are more faults than images; ask for more captions")


def make_draft(rows: Iterable[dict[str, Any]]) -> Draft:
    """A draft of all rows: one shard."""
    rows = list(rows)
    names = ("key", "caption_id", "text", "perspective", "granularity", "level", "status", "finish_reason")
    return Draft({name: [row[name] for row in rows] for name in names})


def curate(
    rows: Sequence[dict[str, Any]], config: CurateConfig
) -> tuple[Draft, dict[str, float], dict[str, set[str]]]:
    """Run the gadgets; the draft, microseconds a caption by gadget, and the captions each one changed."""
    Language(config.language).is_foreign("x " * 9, ["x"] * 9)  # loads the library
    draft, cost = make_draft(rows), {}
    started = time.perf_counter()
    openers = Openers(config.clean, load_phrases(config.phrases).learn)
    learnt = openers.merge(iter([openers.of_shard(draft)]))
    endings = Endings()
    habits = endings.merge(iter([endings.of_shard(draft)]))
    cost["learning openers and endings"] = time.perf_counter() - started
    print("learnt openers:", ", ".join(learnt))
    changed: dict[str, set[str]] = defaultdict(set)
    for gadget in make_gadgets("texts", config, Known(openers=learnt, habits=habits)):
        _apply(gadget, draft, cost, changed)
    started = time.perf_counter()
    repeated = config.boilerplate.statistic()
    crowded = repeated.merge(iter([repeated.of_shard(draft)]))
    cost["counting near-duplicates"] = time.perf_counter() - started
    _apply(Boilerplate(repeated, crowded), draft, cost, changed)
    _apply(Duplicates(config.duplicates, coverage=config.coverage), draft, cost, changed)
    return draft, {name: 1e6 * seconds / len(draft) for name, seconds in cost.items()}, changed


def _apply(gadget: Gadget, draft: Draft, cost: dict[str, float], changed: dict[str, set[str]]) -> None:
    before, started = list(draft.texts), time.perf_counter()
    gadget.apply(draft)
    cost[gadget.name] = time.perf_counter() - started
    identities = draft.columns["caption_id"]
    changed[gadget.name] = {identities[i] for i, old in enumerate(before) if draft.texts[i] != old}


def judge(draft: Draft, planted: dict[str, Planted], changed: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """The tables by fault and by gadget, and on the way what was missed or lost, printed."""
    row_of = {identity: row for row, identity in enumerate(draft.columns["caption_id"])}
    found: Counter[Fault] = Counter()
    by_other: Counter[Fault] = Counter()
    missed: dict[str, list[str]] = defaultdict(list)
    excused = set(planted)
    for identity, plant_ in planted.items():
        fault, row = plant_.fault, row_of[identity]
        verdict = draft.verdicts[row]
        key = draft.columns["key"][row]
        twins = [identity, f"{key}-detail"] if "duplicates" in fault.gadgets else [identity]
        verdicts = [draft.verdicts[row_of[twin]] for twin in twins]
        excused |= set(twins)
        if plant_.expected is not None and verdict is None:
            ok = draft.texts[row] == plant_.expected
        else:
            ok = any(v is not None and v[0] in fault.gadgets for v in verdicts)
        found[fault] += ok
        if not ok:
            by_other[fault] += verdict is not None
            missed[f"{fault.name}{', held out' * fault.held_out}"].append(
                f"{verdict and str(verdict[1])}: {draft.columns['text'][row]!r} -> {draft.texts[row]!r}"
            )
    lost: dict[str, list[str]] = defaultdict(list)
    for identity, row in row_of.items():
        verdict = draft.verdicts[row]
        if identity in excused:
            continue
        if verdict is not None:
            lost[verdict[0]].append(f"{verdict[1]}: {draft.columns['text'][row]!r}")
        if identity in changed["clean"]:
            lost["clean"].append(f"changed: {draft.columns['text'][row]!r} -> {draft.texts[row]!r}")
    _print_samples(missed, lost)
    return _tables(planted, found, by_other, lost)


def _print_samples(missed: dict[str, list[str]], lost: dict[str, list[str]]) -> None:
    for title, samples in (("missed", missed), ("honest captions lost to", lost)):
        for name, texts in samples.items():
            print(f"{title} {name}: {len(texts)}")
            for text, count in Counter(texts).most_common(SAMPLES):
                print(f"    {count} x {text[:220]}")


SAMPLES = 8


def _tables(
    planted: dict[str, Planted], found: Counter[Fault], by_other: Counter[Fault], lost: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    counts = Counter(plant_.fault for plant_ in planted.values())
    by_fault = ["| fault | gadget | planted | found | dropped for another reason | recall |",
                "| --- | --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    by_gadget = ["| gadget | honest captions lost | precision | recall | planted | held-out recall | planted |",
                 "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    total: dict[str, dict[bool, list[int]]] = {}
    for fault in counts:
        n, hits, gadget = counts[fault], found[fault], fault.gadgets[0]
        sums = total.setdefault(gadget, {False: [0, 0], True: [0, 0]})[fault.held_out]
        sums[0] += n
        sums[1] += hits
        name = f"{fault.name}{', held out' * fault.held_out}"
        by_fault.append(f"| {name} | `{gadget}` | {n} | {hits} | {by_other[fault]} | {hits / n:.3f} |")
    for gadget, halves in total.items():
        hits, wrong = halves[False][1] + halves[True][1], len(lost[gadget])
        recalls = [f"{h / n:.3f} | {n}" if n else "– | –" for n, h in (halves[False], halves[True])]
        by_gadget.append(f"| `{gadget}` | {wrong} | {hits / (hits + wrong):.3f} | {' | '.join(recalls)} |")
    return by_fault, by_gadget


def main() -> None:
    """Plant, curate, judge, print; and again as if no engine had said why it stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for kinds, knows in ((faults(options.seed), True), (silent_faults(), False)):
        rows = captions(-(-options.captions // len(PROMPTS)) + len(held_out()["honest"]), options.seed)
        planted = plant(rows, kinds, options.seed, tell_honest(rows, options.seed))
        if not knows:
            rows = [{**row, "finish_reason": None} for row in rows]
        draft, cost, changed = curate(rows, build(CurateConfig, CONFIG))
        by_fault, by_gadget = judge(draft, planted, changed)
        print(f"\n{len(rows):,} captions, {len(planted):,} faults, finish_reason {'known' if knows else 'unknown'}\n")
        print("\n".join([*by_gadget, "", *by_fault, "", "| step | µs a caption |", "| --- | ---: |"]))
        print("\n".join(f"| {name} | {spent:.1f} |" for name, spent in cost.items()))


if __name__ == "__main__":
    main()
