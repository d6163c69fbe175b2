"""Talk is told from captions by its shape, whatever the words; what a caption quotes is nobody's talk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_workspace import draft_of, reasons

from captioning.curate.gadgets.reject import Reject, RejectConfig
from captioning.curate.text_rules.phrases import load_phrases
from captioning.curate.text_rules.talk.sentences import sentence_of, sentences
from captioning.curate.text_rules.talk.vocabulary import TalkWords

PHRASES = load_phrases(None)


def judged(text: str, perspective: str = "detail") -> str | None:
    """What `reject` says of a text."""
    draft = draft_of({"text": text, "perspective": perspective})
    Reject(RejectConfig(), PHRASES).apply(draft)
    return reasons(draft)[0]


@pytest.mark.parametrize(
    "text",
    [
        "I hesitate to describe this image.",
        "I lack the visual input needed here.",
        "We are not able to caption this content.",
        "The attachment didn't come through.",
        "Image unavailable.",
        "There was no image in the request.",
        "There seems to be a problem with the image file.",
        "Describing real people is not permitted.",
        "For safety reasons the content of this image is not described.",
        "It isn’t possible to describe an image that is not there.",
        "Sorry, that's not possible.",
    ],
)
def test_a_refusal_is_told_by_its_shape(text: str) -> None:
    assert judged(text) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "A boat. Want more details?",
        "A boat. Should you require a longer version, one can be written.",
        "A boat. Please send another one.",
        "A boat. Hope this is useful.",
        "A boat. I could be wrong about its age.",
        "A boat. This summary sticks to what is visible.",
        "A boat. Additional details are available on request.",
        "In response to the prompt, a boat lies on a beach.",
        "The request is for a short caption. A boat.",
        "You've asked for the style. It is modern.",
        "Below is the caption. A boat.",
    ],
)
def test_talk_about_the_request_is_told_by_its_shape(text: str) -> None:
    assert judged(text) == "meta"


@pytest.mark.parametrize(
    "text",
    [
        "A portrait of Henry I hangs in a hall.",
        "Elizabeth I of England sits on a throne.",
        "A World War I soldier stands in a trench.",
        "A My Little Pony toy on a shelf.",
        'A sign reading "Please do not feed the animals. Can I help you?"',
        "A banner says: what are you waiting for?",
        "A shirt with the words I love you on it.",
        "I can see a boat on a beach.",
        "We look down on a valley, and our gaze falls on a farm.",
        "It makes you want to dive in.",
        "If you look closely, there is a bird on the roof.",
        "You can see the mountains in the distance.",
        "A photo of a man who does not see the camera.",
        "The photo is missing a corner.",
        "No people are visible in the image.",
        "The license plate is blurred for privacy reasons.",
        "The answer is written on a blackboard.",
        "A user interface shows a chat between two people.",
        "A heron, perhaps?",
        "It is impossible to tell the season from the bare rocks.",
        "Unable to stand, a foal lies in the straw.",
        "A Give Way sign at a crossing.",
        "Sorry! board game on a table.",
        "A clock with Roman numerals from I to XII above a square.",
        'A robot at a desk, typing "As an AI, I have feelings too" on a typewriter.',
        'A chat window shows the text "Hello! I am your virtual assistant."',
    ],
)
def test_captions_with_such_words_are_left_alone(text: str) -> None:
    assert judged(text) is None


def test_a_perspective_that_quotes_is_judged_by_what_is_about_the_picture() -> None:
    assert judged("I love you. Call me!", "text") is None
    assert judged("I love you. Call me!") == "meta"
    assert judged("I can't read any text in this image.", "text") == "refusal"


def test_sentences_end_where_they_quote() -> None:
    parts = sentences('He said "Go. Now." A sign reads do not enter. Well')
    assert [" ".join(sentence_of(part, PHRASES.talk).words) for part in parts] == ["he said", "a sign reads", "well"]


@given(st.text(max_size=80) | st.text(alphabet="I'm not \"you‘’?.!“”", max_size=60))
def test_no_text_is_an_error_and_no_words_no_talk(text: str) -> None:
    judged(text)
    assert not TalkWords().signals
