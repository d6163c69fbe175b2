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

REFUSALS = (
    "I'm sorry, but I can't assist with that request.",
    "I'm unable to identify people in images.",
    "Sorry, I can't help with identifying individuals from this picture.",
    "I apologize, but I am not able to view or analyze images directly.",
    "I cannot provide a description of this image.",
    "Unfortunately, I don't have the ability to see images.",
    "No image was uploaded. Please attach an image and try again.",
    "It is not possible to determine the style without seeing the image.",
    "I'm not able to describe this content.",
    "As the image did not load, I can't describe it.",
    "I must decline to describe this picture.",
    "Please provide the image you would like me to describe.",
    "I'm afraid I can't describe what is in this photo.",
    "Apologies, but I'm unable to fulfil this request.",
    "I won't be able to help with captioning this one.",
    "There is no image attached to your message.",
    "I do not feel comfortable describing this image.",
    "Due to privacy concerns, I can't comment on the people shown here.",
    "We are sorry, the picture could not be processed.",
    "I can’t see the picture you are referring to.",
    "Regrettably, I cannot generate a caption for this.",
    "My apologies, I seem unable to open the file.",
    "The picture you sent appears to be missing.",
    "I'd rather not describe this image.",
    "I don't think I can help describe this photograph.",
    "Sorry, this image seems to be unavailable to me.",
    "I cannot make out any picture in your message.",
    "I'm sorry, I don't see an image here.",
    "I am not in a position to describe the individuals in this image.",
    "Unfortunately I was not able to process the file.",
    "I will not provide a description of this content.",
    "As a responsible assistant, I can't describe this scene.",
    "It's against my policy to describe real people.",
    "I have no access to the picture, so a description is not possible.",
    "The image you shared could not be loaded.",
    "I can't provide a caption for images like this.",
    "We're unable to comment on the identity of the person shown.",
    "I regret that I cannot fulfil your request.",
    "Oops, something went wrong while reading the image.",
    "No picture has been provided, so I cannot answer.",
    "I hesitate to describe this image, since it may show a private person.",
    "Regretfully, we can't produce a caption here.",
    "This image cannot be described.",
    "Sorry, no description is available for this file.",
    "I'm just a text model and can't view pictures.",
    "I am sorry but this goes beyond what I may do.",
    "The file appears to be corrupted.",
    "Unable to access the image at this time.",
    "Without an image I have nothing to describe.",
    "I was unable to find any image in the conversation.",
    "For legal reasons I must not name this person.",
    "I don't see anything.",
)
# {} is an honest caption
META = (
    "{} Let me know if you would like more details!",
    "As an AI language model, I do not experience feelings, but the picture seems calm.",
    "{} I hope this description helps!",
    "{} If you need anything else, feel free to ask.",
    "Based on your instructions, I will only describe the background. {}",
    "{} (Note: this description follows the prompt.)",
    "You asked for a short caption, so here it is. {}",
    "{} Would you like me to describe something else?",
    "The user wants a single sentence. {}",
    "{}<|im_end|>",
    "{} ### Human: Describe the image again.",
    "As a text-based assistant I cannot judge the mood, although the light is soft.",
    "{} Please note that I can't verify who is shown.",
    "{} Shall I go into more detail?",
    "{} I'm happy to expand on this if required.",
    "Per your request, the answer avoids naming any objects. {}",
    "{} Is there anything else you'd like to know about the picture?",
    "{} My training data does not allow me to be more precise.",
    "Being an AI model, I have no opinion on this photograph.",
    "{} [/INST]",
    "{} Hope that's what you were looking for!",
    "The prompt asks for noun words only. {}",
    "{} That concludes my description.",
    "I am a large language model and have no eyes, yet the colours are described as warm.",
    "{} Feel free to share another image!",
    "{} I trust this answers your question.",
    "Since you asked for the background only, here it is: {}",
    "{} If further information is required, just ask.",
    "{} This description was generated by an AI and may be wrong.",
    "{} I can describe it in more detail if you like.",
    "As an artificial intelligence I see no style, but others may find it soft.",
    "{} (25 words)",
    "{}</s>",
    "Following the instructions you gave, the objects are left out. {}",
    "{} Do you need me to translate this?",
    "{} <|endoftext|>",
    "Okay, the user is asking for a description of the photo. {}",
    "{} I cannot determine the location from the picture alone.",
    "{} Thank you for sharing this photo with me!",
    "{} As your assistant I remain at your disposal.",
    "{} Let me know whether this works for you.",
    "{} Should you require a longer version, I can write one.",
    "{} If you'd like, I can also list the colours.",
    "I was asked to leave out the objects. {}",
    "{} As a language model, I can only guess at the mood.",
    "{} Note: the description is limited to 30 words.",
    "{} Hope this is useful!",
    "According to your prompt, only the style counts. {}",
    "{} Feel free to ask me for more.",
    "{} <|assistant|>",
    "{} Is this what you had in mind?",
    "{} My answer is based on the visible content only.",
)
LISTED_OPENERS = (
    "The image shows {}", "This picture depicts {}", "In this image, we can see {}", "The photo captures {}",
    "In the picture there is {}", "Sure! Here is a caption for the image: {}", "Caption: {}",
    "This is an image of {}",
    "In this photo, you can see {}", "Here's a short description of the image: {}", "The photograph features {}",
    "Certainly! {}", "The scene portrays {}", "This image clearly displays {}", "We can see {}",
    "Image description: {}",
)  # fmt: skip
NEW_OPENERS = (
    "In this snapshot one notices {}", "The visual highlights {}", "This frame offers {}",
    "Looking at this picture, our eyes meet {}", "The shot zooms in on {}", "What this scene conveys is {}",
    "The photograph before us presents {}", "In this shot the viewer encounters {}", "Our picture tells of {}",
    "This illustration brings to life {}",
    "The frame is dominated by {}", "Here in this photo stands {}", "This picture beautifully frames {}",
    "Within the image the eye finds {}", "The scene revolves around {}",
)  # fmt: skip
FOREIGN = (
    (
        "Ein brauner Hund läuft über den nassen Strand und schaut zu den Wellen.",
        "Der Hintergrund zeigt eine alte Stadt mit vielen kleinen Häusern.",
        "Das Bild wirkt ruhig und hat warme Farben mit weichen Schatten.",
        "Un chat noir dort sur le rebord d'une fenêtre ensoleillée.",
        "L'arrière-plan est une rue pavée avec des maisons anciennes.",
        "Une femme marche sous la pluie avec un parapluie rouge.",
        "Dos niños juegan al fútbol en una plaza llena de palomas.",
        "El fondo muestra montañas nevadas y un cielo despejado.",
        "Una barca a vela naviga sul lago al tramonto.",
        "Lo sfondo è un vecchio muro di mattoni con dell'edera.",
        "Um barco vermelho está parado na praia perto das pedras.",
        "Een oude man leest de krant op een bank in het park.",
        "一只棕色的狗在海滩上奔跑。",
        "背景是一座有许多高楼的城市。",
        "Красная лодка стоит у деревянного причала.",
        "海辺を走る茶色の犬がいます。",
    ),
    (
        "Zwei Pferde stehen nebeneinander auf einer grünen Wiese.",
        "Une ambiance paisible se dégage de cette photo en noir et blanc.",
        "El estilo es moderno, con colores vivos y mucha luz natural.",
        "Un cuoco prepara la pasta in una piccola cucina.",
        "Uma mulher de vestido azul caminha pela rua molhada.",
        "De achtergrond bestaat uit een rij hoge bomen langs het water.",
        "Stary rower stoi oparty o ceglaną ścianę obok drzwi.",
        "En liten röd stuga ligger vid en lugn sjö i skogen.",
        "Kırmızı bir araba dar sokakta park etmiş durumda.",
        "Vanha puuvene kelluu tyynellä järvellä aamun sumussa.",
        "Một người phụ nữ đang đi xe đạp trên con đường nhỏ.",
        "Seekor kucing hitam tidur di atas kursi kayu tua.",
        "На заднем плане видны горы и тёмный лес.",
        "빨간 우산을 든 여자가 거리를 걷고 있다.",
        "قطة سوداء تنام على كرسي خشبي قديم.",
        "Ένα κόκκινο ποδήλατο ακουμπά στον τοίχο.",
    ),
)
UNSAFE = (
    (
        "A naked woman poses on a bed.",
        "Two people having sex on a sofa.",
        "A pornographic scene with several adults.",
        "A man exposing his penis to the camera.",
        "A decapitated body lies on the road.",
        "A dead body in a pool of blood.",
        "A severed head on a pole.",
        "The victim's gunshot wound is clearly visible.",
        "A fully naked man stands in the shower.",
        "A woman masturbating in front of a mirror.",
        "Her genitals are uncovered and in focus.",
        "An explicit image of oral sex.",
        "Several mutilated corpses lie in a ditch.",
        "A soldier's entrails spill onto the ground.",
        "A blood-soaked corpse with a slit throat.",
        "A woman with bare breasts lies on a towel.",
        "A couple engaged in intercourse.",
        "The charred remains of a person in a burnt car.",
        "A nude couple embraces on a mattress.",
        "A woman in lingerie spreads her legs, her vulva exposed.",
        "A still from a pornographic film.",
        "Two men engaging in anal sex.",
        "A topless woman lies on a bed.",
        "A masturbating man on a webcam.",
        "Bodies of victims riddled with bullets.",
        "A corpse with its throat cut.",
        "A beheaded prisoner on the ground.",
        "A hand severed from the arm lies on a table.",
        "Dead bodies are piled up in a street.",
        "A wounded man covered in blood.",
    ),
    (
        "A naked couple in a shower.",
        "A nude woman lies on a carpet.",
        "A man penetrating a woman on a bed.",
        "Close-up of a penis.",
        "Two women engage in oral sex.",
        "A dismembered corpse in a forest.",
        "A soldier with his leg blown off.",
        "A bloodied body lies under a sheet.",
        "A hanged man dangles from a tree, his face swollen.",
        "The mutilated body of an animal.",
    ),
)
NAMES_MAIN = {
    "background": (
        ("Behind the {} there is a wall.", "The {} stands in front of {}", "{1} The {0} is in the foreground."),
        ("The background of the {} is blurred: {}", "A close view of the {}, with {}", "Around the {} one sees {}"),
    ),
    "style": (
        ("The {} is shown in a dramatic light. {}", "A moody portrait of the {}. {}"),
        ("{1} The {0} looks almost painted.", "It makes the {} seem lonely. {}"),
    ),
}
BOILERPLATE = (
    "The image has a calm and pleasant atmosphere with soft, natural colors.",
    "The image has a calm and pleasant atmosphere, with soft natural colors.",
    "The background is blurred, which helps to draw attention to the main subject.",
)


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


def _named(texts: tuple[str, ...]) -> Callable[[dict[str, Any], Random], str | None]:
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
    unseen = held_out()
    openers = tuple(f"{opener.rstrip()} {{}}" for opener in unseen["openers"])
    few = tuple(Random(seed).sample(openers, 5))
    found = []
    for half in (0, 1):
        for name, gadget, count, prompts, plant in (
            ("refusal", "reject", 120, tuple(PROMPTS), _instead(*(REFUSALS, unseen["refusals"])[half])),
            ("meta talk", "reject", 120, ("detail", "sentence", "style"), _instead(*(META, unseen["meta"])[half])),
            ("opener", "clean", 100, ("sentence",), _opener(*(LISTED_OPENERS, openers)[half])),
            ("new opener", "clean", (300, 160)[half], ("sentence", "detail"), _opener(*(NEW_OPENERS, few)[half])),
            ("language", "language", 100, sentences, _instead(*FOREIGN[half])),
            ("unsafe", "unsafe", 80, ("sentence", "main_object"), _instead(*UNSAFE[half])),
            ("off topic background", "off_topic", 50, ("background",), _named(NAMES_MAIN["background"][half])),
            ("off topic style", "off_topic", 50, ("style",), _named(NAMES_MAIN["style"][half])),
        ):
            fits = _is_noun_phrase if gadget == "clean" else Fault.fits
            found.append(Fault(name, (gadget,), count, prompts, plant, half == 1, fits))
    return [
        *found,
        Fault("loop", ("reject",), 150, ("detail", "sentence"), _loop),
        Fault("cut paragraph", ("ending",), 120, ("detail",), _cut("length")),
        Fault("cut sentence", ("ending",), 80, ("sentence", "background"), _cut("length")),
        Fault("cut list", ("ending",), 80, ("nouns",), _cut_list, fits=_is_list),
        Fault("too short", ("length",), 60, ("detail",), _short),
        Fault("too long", ("length",), 60, ("nouns", "phrase"), _long, fits=bool),
        Fault("same words twice", ("duplicates",), 100, ("sentence",), _same),
        Fault("nearly the same words", ("duplicates",), 100, ("sentence",), _nearly_same),
        Fault("same sentence everywhere", ("boilerplate",), 250, ("style",), _instead(*BOILERPLATE[:2])),
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


@lru_cache(maxsize=1)
def held_out() -> dict[str, Any]:
    """Wordings that nobody had looked at while rules were written, by kind; `honest` are captions."""
    return load_yaml(Path(__file__).with_name("curation_held_out.yaml"))


def tell_honest(rows: Sequence[dict[str, Any]], seed: int) -> frozenset[str]:
    """Put the honest captions of those wordings in the place of others; their images by key."""
    rng = Random(seed)
    spoken = [row for row in rows if row["prompt"] == "sentence"]
    chosen = rng.sample(spoken, len(held_out()["honest"]))
    for row, text in zip(chosen, held_out()["honest"], strict=True):
        row["text"], row["granularity"] = text, "phrase" if len(text.split()) < LONG else "paragraph"
    return frozenset(row["key"] for row in chosen)
