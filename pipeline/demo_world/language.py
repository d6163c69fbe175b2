"""Says the truth about a scene in the words of each prompt: several wordings per prompt, all of them true.

Prompts are named by their id, the same in the paper's and in Holism's prompt set. Wording 0 is the canonical one: it
serves as the query caption in evaluation. The words of different prompts are kept apart on purpose, so that captions
of one image differ as much as what they look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.demo_world.phrases import (
    DOINGS,
    MANNERS,
    NUMBERS,
    PARTS,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SCENERY,
)
from pipeline.demo_world.vocabulary import BACKGROUNDS, STYLES

Truth = dict[str, Any]
WORDINGS = 3
FOLLOWS_PARAPHRASE = 0.7  # how often an answer's wording is the one that goes with the prompt's paraphrase


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def join(parts: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def colored(thing: dict[str, Any]) -> str:
    """'red star', or 'star' where no colour can be seen."""
    return f"{thing['color']} {thing['shape']}" if thing["color"] else thing["shape"]


def _main(t: Truth) -> str:
    return f"{t['size']} {colored(t['main'])}"


def _at(thing: dict[str, Any]) -> str:
    return PLACE_PHRASES[thing["place"]]


def _others_with_places(t: Truth) -> str:
    return join([f"{article(colored(other))} {_at(other)}" for other in t["others"]])


def _detail(t: Truth) -> list[str]:
    main, place, where = article(_main(t)), _at(t["main"]), BACKGROUNDS[t["background"]]
    others = _others_with_places(t) if t["others"] else "nothing else"
    style = STYLES[t["style"]]
    sign = f" A sign reads {t['sign']}." if t["sign"] else ""
    return [
        f"This is {style} of {main} {place}, {where}. There is also {others}.{sign}",
        f"{capital(main)} {place} is seen {where}, together with {others}.{sign} It is {style}.",
        f"{capital(where)}, {main} can be found {place}. Around it: {others}.{sign} The picture is {style}.",
    ]


def _sentence(t: Truth) -> list[str]:
    main, where, style = article(colored(t["main"])), BACKGROUNDS[t["background"]], STYLES[t["style"]]
    others = join([article(other["shape"]) for other in t["others"]]) if t["others"] else "nothing else"
    return [
        f"{capital(style)} of {main} {where} with {others}.",
        f"{capital(main)} {where} with {others}, {style}.",
        f"The image shows {main} with {others} {where} as {style}.",
    ]


def _phrase(t: Truth) -> list[str]:
    main, place = colored(t["main"]), t["background"]
    return [f"{main} {BACKGROUNDS[place]}", f"{main} and {place}", f"{place} with {main}"]


def _nouns(t: Truth) -> list[str]:
    others = [other["shape"] for other in t["others"]]
    nouns = [t["main"]["shape"], *others, t["background"]]
    return [", ".join(nouns), ", ".join(nouns), ", ".join([nouns[0], *others[::-1], nouns[-1]])]


def _main_object(t: Truth) -> list[str]:
    main = _main(t)
    return [
        f"{capital(article(main))}.",
        f"The main object is {article(main)}.",
        f"The most striking thing is {article(main)}.",
    ]


def _background(t: Truth) -> list[str]:
    name, (scenery, _) = t["background"], SCENERY[t["background"]]
    named = name if name == "mountains" else article(name)
    return [
        f"The background is {named}: {scenery}.",
        f"{capital(named)} with {scenery}.",
        f"Behind everything: {named}, {scenery}.",
    ]


def _style(t: Truth) -> list[str]:
    style, (look, feeling, _) = STYLES[t["style"]], MANNERS[t["style"]]
    return [
        f"{capital(style)} with {look}; it feels {feeling}.",
        f"The style is {style}, {look}, and the feeling is {feeling}.",
        f"It looks {feeling}: {style} made of {look}.",
    ]


def _attributes(t: Truth) -> list[str]:
    main = t["main"]
    look = f"{t['size']} and {main['color']}" if main["color"] else t["size"]
    noun, parts = main["shape"], PARTS[main["shape"]]
    return [
        f"The {noun} is {look}, with {parts}.",
        f"It is {look} and has {parts}.",
        f"This {noun} has {parts}; it is {look}.",
    ]


def _other_objects(t: Truth) -> list[str]:
    if not t["others"]:
        return ["There are no other objects.", "Nothing else is there.", "No further objects."]
    listing = join([article(colored(other)) for other in t["others"]])
    return [f"{capital(listing)}.", f"Besides the main object: {listing}.", f"One can also see {listing}."]


def _layout(t: Truth) -> list[str]:
    things = [t["main"], *t["others"]]
    count = f"{NUMBERS[len(things)]} object{'s' if len(things) > 1 else ''}"
    placed = join([f"the {thing['shape']} {_at(thing)}" for thing in things])
    verb = "are" if len(things) > 1 else "is"
    return [
        f"There {verb} {count}: {placed}.",
        f"{capital(placed)} make {count}." if len(things) > 1 else f"{capital(placed)} makes {count}.",
        f"{capital(count)} in all, {placed}.",
    ]


def _relations(t: Truth) -> list[str]:
    main = t["main"]["shape"]
    if not t["others"]:
        return [f"The {main} is alone.", f"Nothing is near the {main}.", f"The {main} has no neighbours."]
    stands = [f"the {other['shape']} is {RELATION_PHRASES[other['relation']]} the {main}" for other in t["others"]]
    stood = [f"{RELATION_PHRASES[other['relation']]} the {main} is the {other['shape']}" for other in t["others"]]
    return [f"{capital(join(stands))}.", f"{capital(join(stood))}.", f"One sees that {join(stands)}."]


def _action(t: Truth) -> list[str]:
    noun, doing, where = t["main"]["shape"], DOINGS[t["main"]["shape"]], BACKGROUNDS[t["background"]]
    return [
        f"The {noun} {doing} {where}.",
        f"{capital(article(noun))} {doing}, {where}.",
        f"{capital(where)} the {noun} {doing}.",
    ]


def _text(t: Truth) -> list[str]:
    if not t["sign"]:
        return ["There is no text.", "No text can be read.", "Nothing is written."]
    return [f'The sign says "{t["sign"]}".', f'It reads "{t["sign"]}".', f'The word "{t["sign"]}" is written.']


def _mood(t: Truth) -> list[str]:
    feeling, air = MANNERS[t["style"]][1], SCENERY[t["background"]][1]
    return [
        f"The mood is {feeling} and {air}.",
        f"It feels {feeling}, also {air}.",
        f"A {air}, {feeling} mood.",
    ]


def _purpose(t: Truth) -> list[str]:
    use = MANNERS[t["style"]][2]
    return [f"It may be meant for {use}.", f"Probably made for {use}.", f"One could use it for {use}."]


def _everything(t: Truth) -> list[str]:
    return [
        json.dumps({prompt: say(t)[wording] for prompt, say in _PERSPECTIVES.items()}) for wording in range(WORDINGS)
    ]


_PERSPECTIVES: dict[str, Callable[[Truth], list[str]]] = {
    "detail": _detail, "sentence": _sentence, "phrase": _phrase, "nouns": _nouns, "main_object": _main_object,
    "attributes": _attributes, "other_objects": _other_objects, "background": _background, "layout": _layout,
    "relations": _relations, "action": _action, "text": _text, "style": _style, "mood": _mood, "purpose": _purpose,
}  # fmt: skip
PROMPT_IDS = (*_PERSPECTIVES, "everything")


def answers(t: Truth, prompt_id: str) -> list[str]:
    """All wordings of the answer to a prompt; raises KeyError for an id that no prompt set has."""
    return _everything(t) if prompt_id == "everything" else _PERSPECTIVES[prompt_id](t)


def canonical(t: Truth, prompt_id: str) -> str:
    """The one wording that stands for the prompt: the query caption of evaluation."""
    return answers(t, prompt_id)[0]


def answer(t: Truth, prompt_id: str, rng: np.random.Generator, paraphrase: int = 0) -> str:
    """One wording: mostly the one that goes with the paraphrase, so that other paraphrases read otherwise."""
    wording = paraphrase % WORDINGS if rng.random() < FOLLOWS_PARAPHRASE else int(rng.integers(WORDINGS))
    return answers(t, prompt_id)[wording]
