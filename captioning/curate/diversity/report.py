"""The report on diversity: one HTML file for one or several sets of captions side by side.

It holds everything it shows, runs no script and fetches nothing. All text is escaped by jinja2; plots are SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import pipeline
from captioning.curate.diversity.collect import CaptionSet
from captioning.curate.diversity.plots import PALETTE, PLOTS, svg
from captioning.curate.gadgets import meanings

TEMPLATES = Path(__file__).parent / "templates"
SHARED = Path(pipeline.__file__).parent / "templates"  # how all reports look
MEANS = {
    "text_similarity": "mean cosine of sentence embeddings over pairs of an image's captions; the paper reports 0.48 "
    "for several prompts to one model and 0.58 for several models",
    "lexical_similarity": "mean Jaccard index of word n-grams over the same pairs",
    "self_bleu": "BLEU-4 of each caption against the image's others",
    "vendi_semantic": "effective number of different captions, by meaning",
    "vendi_lexical": "effective number of different captions, by words",
    "distinct_1": "share of different words among an image's words",
    "distinct_2": "the same of word pairs",
    "distinct_3": "the same of word triples",
}


def render(sets: Sequence[CaptionSet], model: str | None) -> str:
    """The page. `model` names what gave the sentence embeddings, if any."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = lambda name: name.replace("_", " ")
    kept = {one.name: one.kept for one in sets}
    return environment.get_template("diversity.html.j2").render(
        sets=sets,
        model=model,
        palette=PALETTE,
        means={name: why for name, why in MEANS.items() if any(name in one.kept.means() for one in sets)},
        dropped=sorted({cause for one in sets for cause in one.dropped}),
        meaning=meanings(),
        plots={name: Markup(svg(plot, kept)) for name, plot in PLOTS.items()},  # matplotlib escapes text
    )
