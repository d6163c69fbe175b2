"""Faults as captioning models really make them, to be planted among honest captions.

What is said is written from how models speak, not from `phrases.yaml`. What was missed of these lists was looked at
while rules were written. What is held out lies in `curation_held_out.yaml`, or is the second part of a list of two;
the table names it apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.curation_world import PROMPTS, capital
from pipeline.config import load_yaml

LONG = 25  # words
MIN_WORDS = 6  # of a caption that can be cut, or have a loop


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how often it is planted, in which prompts' rows, and who has to find it.

    `plant` changes a row in place and returns what the row's text should become, or None if it should be dropped. A
    row knows the head noun of the main object (`head`) and the image's detail caption (`twin`).
    """

    name: str
    gadgets: tuple[str, ...]
    count: int
    prompts: tuple[str, ...]
    plant: Callable[[dict[str, Any], Random], str | None]
    held_out: bool = False
    fits: Callable[[str], bool] = lambda text: len(text.split()) >= MIN_WORDS


def _is_list(text: str) -> bool:
    return text.count(",") >= 2


def _is_noun_phrase(text: str) -> bool:
    """Whether it can go on after "The image shows"."""
    return text.split()[0].lower() in ("a", "an", "two", "three", "the")


def _instead(*texts: str) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> str | None:
        text = rng.choice(texts)
        row["text"] = text.replace("{}", row["text"])
        return held_out()["cleaned"].get(text)

    return plant


def _wrapped(*wrappings: str) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> str:
        honest: str = row["text"]
        row["text"] = rng.choice(wrappings).replace("{}", honest)
        return honest if honest.endswith(".") else f"{honest}."  # `ending` sets it

    return plant


def _opener(*openers: str) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> str:
        honest = row["text"] if row["text"].endswith(".") else f"{row['text']}."
        opener = rng.choice(openers)
        rest = honest if opener.split("{}")[0].strip()[-1] in ":!" else honest[:1].lower() + honest[1:]
        row["text"] = opener.replace("{}", rest)
        return capital(rest)

    return plant


def _loop(row: dict[str, Any], rng: Random) -> None:
    tokens = row["text"].rstrip(".").split()
    kind = rng.choice(["word", "phrase", "sentence", "late"])
    if kind == "word":
        row["text"] = " ".join([*tokens, *[tokens[-1]] * rng.randint(4, 20)])
    elif kind == "phrase":
        looped = [*tokens[:3], "and"] * 12
        row["text"] = " ".join(looped[: rng.randint(14, 40)])
    elif kind == "sentence":
        row["text"] = " ".join([row["text"]] * 4)[: rng.randint(3 * len(row["text"]) + 3, 4 * len(row["text"]))]
    else:
        looped = (["The", "sky", "is", "clear", "and", "blue."] * 9)[: rng.randint(18, 50)]
        row["text"] = f"{row['text'].rstrip('.')}. {' '.join(looped)}"
    row["finish_reason"] = "length" if kind != "word" else row["finish_reason"]


def _cut(finish: str | None) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> str | None:
        tokens = row["text"].rstrip(".").split()
        stop = rng.randint(2, len(tokens) - 1)
        while tokens[stop - 1].endswith((".", ":", ",")):
            stop -= 1
        row["text"], row["finish_reason"] = " ".join(tokens[:stop]), finish
        whole = [position for position in range(stop) if tokens[position].endswith(".")]
        return " ".join(tokens[: whole[-1] + 1]) if whole else None

    return plant


def _cut_text(*texts: str) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> str | None:
        row["text"] = rng.choice(texts)
        whole, stop, _ = row["text"].rpartition(". ")
        return f"{whole}." if stop else None

    return plant


def _cut_list(row: dict[str, Any], rng: Random) -> str | None:
    items = row["text"].rstrip(".").split(", ")
    stop = rng.randint(2, len(items) - 1)
    cut = items[stop][: rng.randint(1, len(items[stop]) - 1)].rstrip()
    row["text"], row["finish_reason"] = ", ".join([*items[:stop], cut]), "length"
    return ", ".join(items[:stop])


def _short(row: dict[str, Any], rng: Random) -> None:
    row["text"] = rng.choice(
        ["Nice picture.", "Outdoors.", "Daytime.", "Yes.", "Very scenic.", "A calm view.", "N/A."]
    )


def _long(row: dict[str, Any], rng: Random) -> None:
    nouns = [
        "tree",
        "road",
        "cloud",
        "stone",
        "house",
        "fence",
        "river",
        "lamp",
        "bird",
        "leaf",
        "roof",
        "wall",
        "bench",
        "path",
        "hill",
        "grass",
        "door",
        "sign",
    ]
    row["text"] = ", ".join(
        f"{rng.choice(['old', 'tall', 'grey', 'small'])} {noun}" for noun in (rng.sample(nouns, 18))
    )


def _named(texts: Sequence[str]) -> Callable[[dict[str, Any], Random], str | None]:
    def plant(row: dict[str, Any], rng: Random) -> None:
        row["text"] = rng.choice(texts).format(row["head"], row["text"])

    return plant


def _same(row: dict[str, Any], rng: Random) -> None:
    twin = row["twin"].rstrip(".")
    row["text"] = rng.choice([f"{twin}.", f"{twin}!", f"{twin.upper()}.", f'"{twin}."'])


def _nearly_same(row: dict[str, Any], rng: Random) -> None:
    tokens = row["twin"].split()
    at = rng.randint(1, len(tokens) - 2)
    row["text"] = " ".join([*tokens[:at], rng.choice(["quite", "really", "perhaps"]), *tokens[at:]])


def faults(seed: int) -> list[Fault]:
    """All faults. Their order matters: each takes images that no other fault has touched.

    Of the openers that are held out, all are planted a few times, and five, drawn by the seed, as often as one model
    says them.
    """
    sentences = ("detail", "sentence", "main_object", "background", "style")
    known, unseen = _wordings("known"), held_out()
    openers = tuple(f"{opener.rstrip()} {{}}" for opener in unseen["openers"])
    few = tuple(Random(seed).sample(openers, 5))
    found = []
    for half in (0, 1):
        for name, gadget, count, prompts, plant in (
            ("refusal", "reject", 120, tuple(PROMPTS), _instead(*(known["refusals"], unseen["refusals"])[half])),
            (
                "meta talk",
                "reject",
                120,
                ("detail", "sentence", "style"),
                _instead(*(known["meta"], unseen["meta"])[half]),
            ),
            ("opener", "clean", 100, ("sentence",), _opener(*(known["listed_openers"], openers)[half])),
            (
                "new opener",
                "clean",
                (300, 160)[half],
                ("sentence", "detail"),
                _opener(*(known["new_openers"], few)[half]),
            ),
            ("language", "language", 100, sentences, _instead(*known["foreign"][half])),
            ("unsafe", "unsafe", 80, ("sentence", "main_object"), _instead(*known["unsafe"][half])),
            (
                "off topic background",
                "off_topic",
                50,
                ("background",),
                _named(known["names_main"]["background"][half]),
            ),
            ("off topic style", "off_topic", 50, ("style",), _named(known["names_main"]["style"][half])),
        ):
            fits = _is_noun_phrase if gadget == "clean" else Fault.fits
            found.append(Fault(name, (gadget,), count, prompts, plant, half == 1, fits))
    return [
        *found,
        Fault("markup", ("clean",), 100, ("detail", "sentence"), _wrapped(*known["markup"])),
        Fault("loop", ("reject",), 150, ("detail", "sentence"), _loop),
        Fault("cut paragraph", ("ending",), 120, ("detail",), _cut("length")),
        Fault("cut sentence", ("ending",), 80, ("sentence", "background"), _cut("length")),
        Fault("cut list", ("ending",), 80, ("nouns",), _cut_list, fits=_is_list),
        Fault("too short", ("length",), 60, ("detail",), _short),
        Fault("too long", ("length",), 60, ("nouns", "phrase"), _long, fits=bool),
        Fault("same words twice", ("duplicates",), 100, ("sentence",), _same),
        Fault("nearly the same words", ("duplicates",), 100, ("sentence",), _nearly_same),
        Fault("same sentence everywhere", ("boilerplate",), 250, ("style",), _instead(*known["boilerplate"])),
    ]


def silent_faults() -> list[Fault]:
    """Cuts in a table of captions that does not say why any of them stopped. Of lists they cannot be told."""
    return [
        *(
            Fault(f"cut {prompt}", ("ending",), 40, (prompt,), _cut(None))
            for prompt in ("detail", "sentence", "main_object", "background", "style")
        ),
        *(
            Fault(f"cut {prompt}", ("ending",), 80, (prompt,), _cut_text(*held_out()["cut"]), held_out=True)
            for prompt in ("detail", "sentence")
        ),
    ]


def held_out() -> dict[str, Any]:
    """Wordings that nobody had looked at while rules were written, by kind; `honest` are captions."""
    return _wordings("held_out")


@lru_cache(maxsize=2)
def _wordings(name: str) -> dict[str, Any]:
    return load_yaml(Path(__file__).with_name(f"curation_{name}.yaml"))


def tell_honest(rows: Sequence[dict[str, Any]], seed: int) -> frozenset[str]:
    """Put the honest captions of those wordings in the place of others; their images by key."""
    rng = Random(seed)
    spoken = [row for row in rows if row["prompt"] == "sentence"]
    chosen = rng.sample(spoken, len(held_out()["honest"]))
    for row, text in zip(chosen, held_out()["honest"], strict=True):
        row["text"], row["granularity"] = text, "phrase" if len(text.split()) < LONG else "paragraph"
    return frozenset(row["key"] for row in chosen)
