"""Honest captions for measuring curation: what a good captioner says about photos, seven perspectives each.

A scene is drawn from a seed, and everything said about it is true of it. The words are many and some are traps:
foreign dishes and place names, red things called blood, signs that say sorry, texts without a full stop, endings such
as "with the lights on". A quarter of the images are scenes of the demo world instead, in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from pipeline import demo_world

# prompt id -> perspective, granularity
PROMPTS = {
    "detail": ("detail", "paragraph"),
    "sentence": ("summary", "sentence"),
    "phrase": ("summary", "phrase"),
    "nouns": ("nouns", "word"),
    "main_object": ("main_object", "sentence"),
    "background": ("background", "sentence"),
    "style": ("style", "sentence"),
}
DEMO_SHARE = 0.25

# head noun, the noun phrase around it, what it is doing
SUBJECTS: tuple[tuple[str, str, tuple[str, ...]], ...] = tuple(
    (head, phrase, tuple(doings.split("/")))
    for head, phrase, doings in (
        ("dog", "{a} {fur} dog", "running after a ball/lying with its paws crossed/waiting by its owner's side"),
        ("retriever", "{a} golden retriever", "shaking off water/panting happily/catching a frisbee in mid-air"),
        ("cat", "{a} {fur} cat", "stretching/curled up asleep/staring at something out of sight"),
        ("horse", "{a} {fur} horse", "grazing/galloping/being led by its bridle"),
        ("horses", "two {fur} horses", "standing neck to neck/trotting side by side"),
        ("woman", "{a} {age} woman in {a2} {colour} dress", "laughing at someone/reading a paperback/walking quickly"),
        ("man", "{a} {age} man with a {colour} scarf", "playing the accordion/checking his watch/selling newspapers"),
        ("boy", "{a} little boy with his cap on backwards", "kicking a football/blowing soap bubbles/eating gelato"),
        ("girl", "{a} girl in {colour} rubber boots", "jumping over a puddle/feeding pigeons/drawing with chalk"),
        ("children", "three children in school uniforms", "sharing a bag of crisps/crossing in single file"),
        ("couple", "an elderly couple", "holding hands/dancing slowly/sharing an umbrella"),
        ("chef", "{a} chef in a tall white hat", "plating a dessert/tossing vegetables in a wok/tasting a sauce"),
        ("cyclist", "{a} cyclist in {colour} jersey", "standing up on the pedals/fixing a flat tyre"),
        ("surfer", "{a} surfer with {a2} {colour} board", "riding a breaking wave/paddling out"),
        ("violinist", "{a} street violinist", "playing with closed eyes/tuning the instrument"),
        ("referee", "an assistant referee", "raising the flag/sprinting along the touchline"),
        ("bicycle", "{a} {colour} bicycle with a wicker basket", "leaning to one side/chained to a post"),
        ("motorcycle", "{a} vintage motorcycle", "gleaming in the sun/standing on its kickstand"),
        ("car", "{a} {colour} convertible car", "turning a corner/parked half on the kerb"),
        ("bus", "{a} {colour} double-decker bus", "stuck in traffic/pulling away from its stop"),
        ("train", "{a} {colour} steam train", "puffing out white smoke/crossing slowly"),
        ("tram", "{a} {colour} tram", "rattling downhill/letting passengers off"),
        ("sailboat", "{a} sailboat with {colour} sails", "heeling in the wind/drifting with slack lines"),
        ("ferry", "{a} large white ferry", "docking stern first/leaving a long wake"),
        ("airplane", "{a} model airplane", "hanging from thin wires/gliding past"),
        ("helicopter", "{a} {colour} rescue helicopter", "hovering low/lowering a basket"),
        ("balloon", "{a} {colour} hot air balloon", "rising slowly/dragging its basket along"),
        ("church", "{a} small whitewashed church", "standing with its doors open/catching the last light"),
        ("lighthouse", "{a} red and white striped lighthouse", "blinking/rising above everything around it"),
        ("bridge", "{a} stone arch bridge", "mirrored in the water/crowded with walkers"),
        ("windmill", "{a} thatched windmill", "turning briskly/standing still"),
        ("cottage", "{a} half-timbered cottage", "smothered in climbing roses/leaning a little"),
        ("skyscraper", "{a} glass skyscraper", "reflecting passing clouds/under construction"),
        ("fountain", "{a} marble fountain", "splashing over its rim/frozen solid"),
        ("statue", "{a} bronze statue of a general", "pointing westward/covered with verdigris"),
        ("bench", "an empty wooden bench", "missing one slat/facing away"),
        ("clock", "{a} round station clock", "showing ten past four/hanging slightly askew"),
        ("guitar", "an acoustic guitar", "resting on its stand/missing a string"),
        ("piano", "{a} black grand piano", "standing with its lid up/covered with sheet music"),
        ("laptop", "{a} silver laptop", "showing a spreadsheet/left open with its screen dark"),
        ("teapot", "{a} {colour} enamel teapot", "steaming/missing its lid"),
        ("mug", "{a} chipped {colour} mug", "filled to the brim/turned upside down"),
        ("cake", "{a} three-tiered cake", "decorated with sugared violets/missing one slice"),
        ("pizza", "{a} margherita pizza", "cut into eight slices/bubbling at the edges"),
        ("salad", "{a} bowl of blood orange salad", "sprinkled with pistachios/glistening with oil"),
        ("sushi", "{a} platter of sushi", "arranged like a fan/half eaten"),
        ("noodles", "{a} bowl of ramen noodles", "topped with a soft egg/steaming"),
        ("croissants", "{a} tray of croissants", "cooling/dusted with icing sugar"),
        ("bananas", "{a} bunch of bananas", "ripening/speckled with brown"),
        ("sunflowers", "{a} bouquet of sunflowers", "drooping a little/tied with raffia"),
        ("orchid", "{a} single white orchid", "in full bloom/shedding a petal"),
        ("owl", "{a} snowy owl", "swivelling its head/blinking one eye"),
        ("heron", "{a} grey heron", "standing on one leg/swallowing a fish"),
        ("parrot", "{a} {colour} parrot", "cracking a nut/hanging upside down"),
        ("penguins", "{a} group of penguins", "waddling in line/huddled together"),
        ("elephant", "an African elephant", "flapping its ears/spraying dust over its back"),
        ("giraffe", "{a} young giraffe", "bending down to drink/nibbling at acacia leaves"),
        ("zebras", "{a} herd of zebras", "drinking side by side/kicking up dust"),
        ("bear", "{a} brown bear", "scratching its back/wading through the shallows"),
        ("fox", "{a} red fox", "sniffing the air/trotting off with something in its mouth"),
        ("squirrel", "{a} squirrel", "nibbling an acorn/frozen in mid-step"),
        ("turtle", "{a} sea turtle", "gliding along/surfacing for air"),
        ("butterfly", "{a} {colour} butterfly", "resting with folded wings/sipping nectar"),
        ("toy", "{a} plush toy with a heart that says sorry", "slumped to one side/propped upright"),
        ("suitcase", "{a} battered leather suitcase", "plastered with hotel stickers/bursting open"),
        ("shoes", "{a} pair of nude-coloured shoes", "lined up neatly/kicked off carelessly"),
        ("umbrella", "{a} {colour} umbrella", "turned inside out/left open to dry"),
        ("kite", "{a} dragon-shaped kite", "diving/trailing a long tail"),
        ("snowman", "{a} lopsided snowman", "melting/wearing a tin bucket"),
        ("kiosk", "{a} newspaper kiosk", "shuttered for the night/hung with magazines"),
    )
)
# noun, where something is, what is there
PLACES: tuple[tuple[str, str, str], ...] = (
    ("beach", "on a pebble beach", "foaming surf, driftwood and a hazy horizon"),
    ("forest", "in a misty beech forest", "slender trunks and shafts of pale light"),
    ("park", "in a city park", "clipped hedges, gravel paths and iron lamps"),
    ("kitchen", "in a rustic kitchen", "copper pans, open shelves and a tiled wall"),
    ("harbour", "in a busy harbour", "stacked crates, masts and screaming gulls"),
    ("market", "at the La Boqueria market in Barcelona", "striped awnings and heaps of produce"),
    ("street", "on a cobblestone street", "shuttered shopfronts and tangled overhead wires"),
    ("square", "on the Plaza Mayor in Madrid", "arcades, balconies and long evening shadows"),
    ("meadow", "in an alpine meadow", "wildflowers, a split-rail fence and snowy summits"),
    ("desert", "in a rocky desert", "red sandstone, dry scrub and an empty sky"),
    ("canal", "beside a narrow canal", "houseboats, leaning gables and green water"),
    ("station", "in a railway station", "iron girders, departure boards and steam"),
    ("library", "in an old library", "ladders, leather spines and green reading lamps"),
    ("garden", "in a walled garden", "espaliered pears, lavender and a mossy path"),
    ("café", "in front of a Paris café", "rattan chairs, chalkboards and zinc tables"),
    ("studio", "in a photo studio", "a seamless grey backdrop and a soft shadow"),
    ("stadium", "in a floodlit stadium", "packed stands, banners and trampled turf"),
    ("lake", "by a mountain lake", "dark firs, still water and low clouds"),
    ("field", "in a field of ripe wheat", "telegraph poles and a distant farm"),
    ("workshop", "in a cluttered workshop", "wood shavings, clamps and dusty windows"),
    ("museum", "in a museum hall", "white plinths, high skylights and polished floors"),
    ("rooftop", "on a flat rooftop", "satellite dishes, washing lines and water tanks"),
    ("river", "on the bank of a wide river", "reeds, a rowing jetty and morning fog"),
    ("garage", "inside a dim garage", "oil stains, tyres and a pegboard of tools"),
    ("bedroom", "in a sunlit bedroom", "rumpled linen, a dead tree branch as a lamp and sheer curtains"),
    ("hospital", "in a hospital corridor", "pale green walls, handrails and swing doors"),
    ("airport", "at an airport gate", "rows of seats and tall panes of glass"),
    ("vineyard", "in a terraced vineyard", "rows of vines and a slate-roofed village"),
    ("cliff", "on a chalk cliff", "a sheer drop, thrift and circling fulmars"),
    ("office", "in an open-plan office", "monitors, swivel chairs and a whiteboard with a flow chart"),
)
OTHERS = (
    "a stack of newspapers", "a potted fern", "a rusty bucket", "two empty glasses", "a folded blanket",
    "a coil of rope",
    "a sleeping tabby", "a pair of binoculars", "an open notebook", "a string of paper lanterns", "a metal bin",
    "a parking meter", "a no-entry sign", "a flock of sparrows", "a wheelbarrow", "a watering can", "a garden gnome",
    "a paper cup", "some scattered leaves", "a tripod", "a fire hydrant", "a shopping trolley",
    "a neon sign reading OPEN",
    "a tourist with a camera", "a delivery van", "a bowl of lemons", "a jar of honey", "a birdcage", "a chessboard",
    "a sign in Spanish that says SALIDA", "a poster that asks people to please keep quiet", "a basket of laundry",
)  # fmt: skip
TIMES = (
    "at dawn", "in the early morning", "around noon", "in the late afternoon", "at dusk", "at night", "after the rain",
    "on an overcast day", "in bright sunshine", "under a clear sky", "in light snowfall", "during the golden hour",
)  # fmt: skip
FURS = ("brown", "black", "white", "grey", "ginger", "spotted", "chestnut", "cream")
COLOURS = ("red", "yellow", "navy", "turquoise", "mustard", "olive", "crimson", "lilac", "orange", "teal", "burgundy")
AGES = ("young", "middle-aged", "elderly", "tall", "smiling", "tired-looking", "freckled")
LOOKS = (
    "warm tones and a shallow depth of field", "harsh contrast and deep shadows", "muted colours and visible grain",
    "soft window light", "saturated colours and crisp detail", "a tilted horizon and motion blur", "pastel hues",
    "a wide-angle perspective that stretches the edges", "a symmetrical composition", "cool blue light",
    "a macro view with creamy bokeh", "black and white film with heavy grain", "backlight that leaves only outlines",
    "flat light and plain, documentary framing", "lens flare and a faded, vintage palette", "long exposure streaks",
)  # fmt: skip
FEELINGS = (
    "calm", "lonely", "cheerful", "nostalgic", "tense", "cosy", "solemn", "playful", "dreamlike", "bustling", "bleak",
    "festive", "intimate", "mysterious", "carefree", "sorry and sad", "hopeful", "melancholic", "energetic", "austere",
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """What one photo shows."""

    head: str
    main: str
    doing: str
    place: str
    where: str
    scenery: str
    others: tuple[str, ...]
    time: str
    look: str
    feelings: tuple[str, str]


def article(phrase: str) -> str:
    """The phrase with the article it needs."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def photo(rng: Random) -> Photo:
    """Draw a photo."""
    head, phrase, doings = rng.choice(SUBJECTS)
    place, where, scenery = rng.choice(PLACES)
    colour = rng.choice(COLOURS)
    phrase = phrase.replace("{colour}", colour).replace("{fur}", rng.choice(FURS)).replace("{age}", rng.choice(AGES))
    phrase = phrase.replace("{a2} ", f"{'an' if colour[0] in 'aeiou' else 'a'} ")
    main = article(phrase.removeprefix("{a} ")) if phrase.startswith("{a} ") else phrase
    others = tuple(rng.sample(OTHERS, rng.randint(1, 3)))
    feelings = rng.sample(FEELINGS, 2)
    return Photo(
        head, main, rng.choice(doings), place, where, scenery, others, rng.choice(TIMES), rng.choice(LOOKS),
        (feelings[0], feelings[1]),
    )  # fmt: skip


def capital(text: str) -> str:
    """With a capital letter at the beginning."""
    return text[:1].upper() + text[1:]


def join(parts: tuple[str, ...]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def say(p: Photo, prompt: str, rng: Random) -> str:
    """One true answer to a prompt."""
    return rng.choice(_SAY[prompt](p, rng))


def _detail(p: Photo, rng: Random) -> list[str]:
    seen = f"{capital(p.main)} is {p.doing} {p.where} {p.time}." if not p.head.endswith("s") else (
        f"{capital(p.main)} are {p.doing} {p.where} {p.time}."
    )  # fmt: skip
    around = rng.choice(
        [
            f"Nearby there is {join(p.others)}.",
            f"To one side one can make out {join(p.others)}.",
            f"{capital(join(p.others))} can be seen close by, a little out of focus.",
            f"On the left there is {p.others[0]}, and on the right there is more of the {p.place}.",
        ]
    )
    behind = rng.choice(
        [
            f"Further back are {p.scenery}, which give the place its character.",
            f"The {p.place} behind has {p.scenery}.",
            f"Around it stretch {p.scenery}.",
        ]
    )
    mood = rng.choice(
        [
            f"The mood is {p.feelings[0]} and slightly {p.feelings[1]}.",
            f"It has {p.look}, and it feels {p.feelings[0]}.",
            "Somebody seems to have left only a moment ago.",
        ]
    )
    parts = [seen, around, behind, mood]
    return [" ".join(parts), " ".join(parts[:3]), f"{seen} {behind} {around}", f"{seen} {around}"]


def _sentence(p: Photo, _: Random) -> list[str]:
    return [
        f"{capital(p.main)} {p.doing} {p.where} {p.time}.",
        f"{capital(p.where)}, {p.main} {p.doing} next to {p.others[0]}.",
        f"{capital(p.main)} {p.where}, with {join(p.others)} nearby.",
        f"There is {p.main} {p.where}, {p.doing}.",
        f"{capital(p.time)}, {p.main} {p.doing} {p.where}",  # no full stop: the engine ended by itself all the same
    ]


def _phrase(p: Photo, _: Random) -> list[str]:
    return [
        f"{p.main} {p.where}",
        f"{p.main} and {p.others[-1]}",
        f"{p.head} and {p.others[0]}",
        f"{capital(p.head)} {p.time}",
        f"{p.main} with the lights on",
        f"{p.feelings[0]} {p.place} with {p.main}",
    ]


def _nouns(p: Photo, rng: Random) -> list[str]:
    others = [other.split(" ", 1)[-1] for other in p.others]
    things = [p.head, *others, p.place, *rng.sample(p.scenery.replace(" and ", ", ").split(", "), 2)]
    return [
        ", ".join(things),
        ", ".join(capital(thing) for thing in things),
        ", ".join([*things[1:], things[0]]) + ".",
    ]


def _main_object(p: Photo, _: Random) -> list[str]:
    verb = "are" if p.head.endswith("s") else "is"
    return [
        f"{capital(p.main)}.",
        f"{capital(p.main)} {verb} {p.doing}.",
        f"The main object in the image is {p.main}.",
        f"The central subject is {p.main}, {p.doing}.",
        f"{capital(p.main)}, {p.doing}.",
        f"The focus of the photo is {p.main}.",
    ]


def _background(p: Photo, _: Random) -> list[str]:
    return [
        f"The background is {article(p.place)} with {p.scenery}.",
        f"{capital(p.scenery)} {p.time}.",
        f"The setting is {article(p.place)}: {p.scenery}.",
        f"Behind everything there are {p.scenery}, softly blurred.",
        f"The backdrop consists of {p.scenery}, seen {p.time}.",
    ]


def _style(p: Photo, _: Random) -> list[str]:
    return [
        f"The photo has {p.look}, and the overall feeling is {p.feelings[0]}.",
        f"It feels {p.feelings[0]} and {p.feelings[1]}, with {p.look}.",
        f"{capital(p.look)} make it {p.feelings[0]}.",
        f"The photo was taken {p.time}; it looks {p.feelings[0]}, with {p.look}.",
        f"The style is {p.feelings[0]} and {p.feelings[1]}, with {p.look}.",
    ]


_SAY = {
    "detail": _detail, "sentence": _sentence, "phrase": _phrase, "nouns": _nouns, "main_object": _main_object,
    "background": _background, "style": _style,
}  # fmt: skip


def captions(images: int, seed: int = 0) -> list[dict[str, Any]]:
    """The rows of honest captions, seven an image, with the columns that gadgets read."""
    rows = []
    for number in range(images):
        rng = Random(f"{seed}-{number}")
        is_demo = rng.random() < DEMO_SHARE
        truth = demo_world.truth(demo_world.sample(seed * images + number)) if is_demo else None
        numpy_rng = np.random.default_rng(number)
        seen = photo(rng)
        twin = ""
        for prompt, (perspective, granularity) in PROMPTS.items():
            text = demo_world.answer(truth, prompt, numpy_rng) if truth else say(seen, prompt, rng)
            text = capital(text.removeprefix("The image shows ")) if prompt == "sentence" else text  # that is a fault
            twin = twin or text
            rows.append(
                {
                    "key": f"{number:07}", "caption_id": f"{number:07}-{prompt}", "prompt": prompt, "text": text,
                    "perspective": perspective, "granularity": granularity, "level": "scene", "status": "ok",
                    "finish_reason": "stop", "twin": twin, "head": truth["main"]["shape"] if truth else seen.head,
                }
            )  # fmt: skip
    return rows
