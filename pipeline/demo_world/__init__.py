"""A small world of rendered scenes whose truth is known exactly: pictures, captions and labels from a seed."""

from pipeline.demo_world.facts import CLASSES, TEMPLATES, claims, facts, holds, labels
from pipeline.demo_world.language import PROMPT_IDS, answer, answers, canonical
from pipeline.demo_world.render import main_mask_png, render
from pipeline.demo_world.scene import HELDOUT_OFFSET, SIDE, Scene, sample, truth

__all__ = [
    "CLASSES",
    "HELDOUT_OFFSET",
    "PROMPT_IDS",
    "SIDE",
    "TEMPLATES",
    "Scene",
    "answer",
    "answers",
    "canonical",
    "claims",
    "facts",
    "holds",
    "labels",
    "main_mask_png",
    "render",
    "sample",
    "truth",
]
