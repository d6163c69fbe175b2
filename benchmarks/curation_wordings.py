"""What `clean` and `reject` make of wordings that their authors had not seen, one by one, with nothing learnt.

    python -m benchmarks.curation_wordings                    # both files
    python -m benchmarks.curation_wordings FILE.yaml

A file has `refusals`, `meta` (talk), `openers` and `honest`, lists of texts. Talk is right if it is dropped, or if
what is left is a caption with its opener off, which `cleaned` tells; an opener is right if nothing is left but the
sentence that was put behind it; honest captions are right as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.curation_faults import make_draft
from captioning.curate.config import CurateConfig
from captioning.curate.gadgets import make_gadgets
from pipeline.config import load_yaml

FILES = ("curation_held_out.yaml", "curation_held_out_2.yaml")
SENTENCE = "a red fox asleep on a mossy log."
GADGETS = ("clean", "reject")


def judge(texts: Sequence[str]) -> list[str | None]:
    """What is left of each text; None if it is dropped."""
    told = {"perspective": "detail", "granularity": "paragraph", "level": "scene", "status": "ok"}
    rows = [
        {"key": f"{row:06d}", "caption_id": f"{row:06d}", "text": text, "finish_reason": "stop", **told}
        for row, text in enumerate(texts)
    ]
    draft = make_draft(rows)
    for gadget in make_gadgets("texts", CurateConfig()):
        if gadget.name in GADGETS:
            gadget.apply(draft)
    return [None if verdict else text for text, verdict in zip(draft.texts, draft.verdicts, strict=True)]


def report(name: str, texts: Sequence[str], is_right: Callable[[str, str | None], bool]) -> None:
    """A line of the table, and what is wrong."""
    left = judge(texts)
    wrong = [(text, found) for text, found in zip(texts, left, strict=True) if not is_right(text, found)]
    print(f"| {name} | {len(texts)} | {len(texts) - len(wrong)} | {1 - len(wrong) / len(texts):.3f} |")
    for text, found in wrong:
        print(f"    {text!r} -> {found!r}")


def main() -> None:
    """Judge the files' lists and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[Path(__file__).with_name(name) for name in FILES])
    for path in parser.parse_args().files:
        lists = load_yaml(path)
        captions = set(lists["cleaned"].values())
        print(f"\n{path.name}\n| wordings | there are | right | share |\n| --- | ---: | ---: | ---: |")
        report("refusals", lists["refusals"], lambda _, found: found is None)
        report("talk", lists["meta"], lambda _, found, good=captions: found is None or found in good)
        openers = [opener + SENTENCE for opener in lists["openers"]]
        report("openers", openers, lambda _, found: found == SENTENCE[0].upper() + SENTENCE[1:])
        report("honest", lists["honest"], lambda text, found: found == text)


if __name__ == "__main__":
    main()
