"""Why captions are dropped: the fixed set of reasons, and what each means in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Reason(StrEnum):
    """Why a caption was dropped."""

    ERROR = "error"
    EMPTY = "empty"
    REFUSAL = "refusal"
    META = "meta"
    MARKUP = "markup"
    REPETITION = "repetition"
    CUT_OFF = "cut_off"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LANGUAGE = "language"
    UNSAFE = "unsafe"
    OFF_TOPIC = "off_topic"
    BOILERPLATE = "boilerplate"
    UNGROUNDED = "ungrounded"
    UNSUPPORTED = "unsupported"
    DUPLICATE = "duplicate"
    TOO_MANY = "too_many"
    NEAR_DUPLICATE = "near_duplicate"
    REDUNDANT = "redundant"
    OVER_LIMIT = "over_limit"


MEANING: Mapping[str, str] = {
    Reason.ERROR: "the engine gave no answer",
    Reason.EMPTY: "nothing is left after cleaning",
    Reason.REFUSAL: "the model refused",
    Reason.META: "the model talks about itself or the request",
    Reason.MARKUP: "tags, tokens or code around the caption could not be told from it",
    Reason.REPETITION: "the text runs in a loop",
    Reason.CUT_OFF: "it stops in the middle, and no whole sentence remains",
    Reason.TOO_SHORT: "fewer words than its granularity asks for",
    Reason.TOO_LONG: "more words than its granularity allows",
    Reason.LANGUAGE: "it is in another language than those expected",
    Reason.UNSAFE: "it has a word of the list of unsafe ones",
    Reason.OFF_TOPIC: "it names the main object, which its perspective was to leave out",
    Reason.BOILERPLATE: "nearly the same sentence stands at very many images",
    Reason.UNGROUNDED: "it does not fit the picture, as the image-text score says",
    Reason.UNSUPPORTED: "it names things that no other caption of the image names",
    Reason.DUPLICATE: "another caption of the image has the same words",
    Reason.TOO_MANY: "the image has more captions than are compared with each other",
    Reason.NEAR_DUPLICATE: "another caption of the image has nearly the same words",
    Reason.REDUNDANT: "too similar to the captions selected before it",
    Reason.OVER_LIMIT: "the image has enough captions without it",
}
