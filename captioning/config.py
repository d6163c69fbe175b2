"""Settings of the caption stage: which models are asked which questions, how, and with what resources.

What decides a caption's text is semantic. Engines, Ray and chunk sizes are operational, except the engine's kind (a
run of the fake engine must never pass for one of a real model) and those of its options that change answers.
"""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from captioning.engine_options import OF_TRANSFORMERS, OPERATIONAL
from pipeline.cluster.config import StageRayConfig
from pipeline.config import Section, Seed, added, operational, partly_operational, semantic
from pipeline.ingest.config import Column
from pipeline.ingest.formats import kind_of
from pipeline.texts import Encoding

Granularity = Literal["word", "phrase", "sentence", "paragraph"]
Level = Literal["object", "attribute", "relation", "scene", "abstract"]
DEMO_VLM = "demo_vlm"  # stands for the model that lies in captioning/demo_vlm/weights


class PromptSelection(Section):
    """A prompt set, by the name of a built-in one (`paper`, `holism`) or by path, and which of its prompts.

    Without `only` these are all but the structured ones. `sample` asks every image only so many of them: drawn by
    `seed` and the image's id, as many different perspectives as possible, all of them equally often.
    """

    set: str = Field("paper", description="a built-in set (paper, holism) or the path of a YAML file")
    only: tuple[str, ...] | None = Field(
        None, description="ids of the prompts to ask; empty: all but the structured ones"
    )
    sample: int | None = Field(
        None, ge=1, description="prompts that each image is asked, drawn by seed and image; empty: all"
    )
    seed: Seed = Field(0, description="seed of the draw of prompts")


class ModelReference(Section):
    """A vision-language model: `demo_vlm`, a folder, or a hub id with its revision.

    `name` is what the captions table calls it (the folder's name or the hub id if empty). A folder's revision is
    read from its content. `weight` is its share of the images where models split them.
    """

    model: str = Field(description="demo_vlm, a folder, a hub id, or a name of the server's")
    name: str | None = Field(
        None, description="what the captions table calls it; empty: the folder's name or the hub id"
    )
    revision: str | None = Field(
        None, description="commit, branch or tag of a hub id; a folder's is computed from its content"
    )
    weight: float = Field(
        1.0, gt=0, description="with mix: split, its share of the images relative to the other models"
    )

    def short(self) -> Any:
        """The model's name, where that says all."""
        return self.model if self == ModelReference(model=self.model) else super().short()

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class SamplingConfig(Section):
    """How text is drawn. Temperature 0 is greedy; then `top_p` and `seed` change nothing and are left out of ids."""

    temperature: float = Field(
        0.0, ge=0, description="sampling temperature; 0: greedy, always the most probable token"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="probability mass that tokens are drawn from; of no effect at temperature 0"
    )
    seed: Seed = Field(0, description="seed of the draw of tokens; of no effect at temperature 0")
    max_tokens: int | None = Field(None, gt=0, description="most tokens of an answer; empty: each prompt's own budget")


class FakeEngineConfig(Section):
    """Behaviour and faults of the fake engine. Image ids are those of the images table."""

    at_once: int = operational(
        1,
        ge=1,
        description="questions that it claims to answer together: decides how many chunks it is given",
    )
    raise_on: tuple[str, ...] = operational((), description="image ids on which a request raises")
    die_on: tuple[str, ...] = operational((), description="image ids on which the process is killed")
    die_at_call: int | None = operational(
        None,
        ge=1,
        description="the process is killed at its n-th call; with a ledger the calls of all processes count",
    )
    delay_seconds: float = operational(0.0, ge=0, description="how long each call takes at least")
    start_seconds: float = operational(0.0, ge=0, description="how long loading takes")
    ledger: str | None = operational(
        None, description="a file to which every call adds process, questions and output tokens"
    )


class ServerConfig(Section):
    """An OpenAI-compatible server. Its key is read from the environment and written nowhere."""

    base_url: str = operational("http://127.0.0.1:8000/v1", description="where the server answers")
    api_key_env: str = operational(
        "OPENAI_API_KEY", description="environment variable that holds the key; unset: no key"
    )
    concurrency: int = operational(64, ge=1, le=1000, description="requests under way from each actor")
    timeout_seconds: float = operational(120.0, gt=0, description="how long one try of a request may take")
    retries: int = operational(
        5, ge=0, description="further tries after timeouts, lost connections, 429 and 5xx, with growing, random waits"
    )

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8000/v1")
        return url.rstrip("/")


class EngineConfig(Section):
    """What serves the models. `auto` is vLLM where it is installed, else transformers."""

    kind: Literal["auto", "vllm", "openai", "transformers", "fake"] = Field(
        "auto", description="what runs the model; auto: vllm where it is installed, else transformers"
    )
    tensor_parallel_size: int = operational(1, ge=1, description="GPUs that one engine spreads a model over")
    max_model_len: int | None = operational(
        None, gt=0, description="tokens of a question with its image and answer; empty: the model's own limit"
    )
    max_num_seqs: int = operational(256, ge=1, description="requests that vLLM decodes together")
    gpu_memory_utilization: float = operational(0.9, gt=0, le=1, description="share of a GPU's memory that vLLM takes")
    batch_size: int = operational(16, ge=1, description="requests that the transformers engine answers together")
    options: dict[str, Any] = partly_operational(
        OPERATIONAL, description="further arguments of vllm.LLM; transformers: trust_remote_code alone"
    )
    server: ServerConfig = operational(default_factory=ServerConfig, description="the server, for kind openai")
    fake: FakeEngineConfig = operational(
        default_factory=FakeEngineConfig, description="behaviour of the fake engine, for tests"
    )

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        if self.kind == "openai" and self.options:
            raise ValueError("options are for an engine of ours; start the server with them, and name its revision")
        if self.kind == "transformers" and (unread := sorted(self.options.keys() - OF_TRANSFORMERS)):
            raise ValueError(
                f"options has {unread[0]!r}, but the transformers engine reads {', '.join(OF_TRANSFORMERS)} alone; "
                "leave it out or set kind: vllm"
            )
        return self

    @property
    def deciding_options(self) -> dict[str, Any]:
        """The options that decide what is answered."""
        options: dict[str, Any] = semantic(self).get("options", {})
        return options


class TableColumns(Section):
    """Which columns of a table of captions hold what, by name or by number, counted from 0.

    A text column may hold lists of captions.
    """

    image: Column = Field(description="the column that says which image a caption is of; match says by what")
    text: Column = Field(description="the column of the captions")
    shard: Column | None = Field(
        None, description="the column of the shard, beside a key where keys are not unique over shards"
    )
    perspective: Column | None = Field(None, description="the column of the perspective")
    granularity: Column | None = Field(None, description="the column of the granularity")
    level: Column | None = Field(None, description="the column of the level")


class TableConfig(Section):
    """Imported captions: a table of captions that people or other models have written."""

    name: str = Field(pattern=r"^[\w.-]+$", description="what the captions table calls them: the model is table:NAME")
    path: str = Field(description="a file, a folder or a glob, on any file system")
    format: Literal["parquet", "jsonl", "csv", "tsv"] | None = Field(
        None, description="format of the table; empty: by the suffix of the path"
    )
    columns: TableColumns = Field(description="which columns hold what")
    match: Literal["image_id", "key", "source", "url"] = Field(
        "image_id", description="the column of the images table that columns.image is compared with"
    )
    perspective: str | None = Field(
        None, description="perspective of rows whose column has none, or where there is no column"
    )
    granularity: Granularity = Field(
        "sentence", description="granularity of rows whose column has none, or where there is no column"
    )
    level: Level = Field("scene", description="level of rows whose column has none, or where there is no column")
    header: bool | None = added(
        None,
        description="whether the first line of a csv or tsv names the columns; empty: unless all are given by number",
    )
    encoding: Encoding = added("utf-8", description="how texts are read that are neither UTF-8 nor marked as UTF-16")

    @property
    def kind(self) -> str:
        """The format, by the suffix if it is not named."""
        return self.format or (kind_of(self.path) or "").removeprefix(".")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.kind:
            raise ValueError(
                f"format is missing, and the path {self.path} does not tell; expected parquet, jsonl, csv or tsv"
            )
        if self.perspective is None and self.columns.perspective is None:
            raise ValueError("perspective is missing: name one, such as detail, or its column in columns.perspective")
        return self


class CaptionConfig(Section):
    """Captions: images × prompts × models, and tables of captions beside or instead of models."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    models: tuple[ModelReference, ...] = Field(
        (ModelReference(model=DEMO_VLM),),
        description="the models that are asked; a name alone stands for {model: name}",
    )
    tables: tuple[TableConfig, ...] = Field(
        (), description="imported captions, beside those of models or instead of them"
    )
    mix: Literal["cross", "split"] = Field(
        "cross",
        description="cross: every model sees every image; split: each image is seen by one model, by their weights",
    )
    prompts: PromptSelection = Field(default_factory=PromptSelection)
    sampling: SamplingConfig = SamplingConfig()
    max_pixels: int = Field(
        1_048_576, ge=1024, description="larger images are scaled down before the engine sees them"
    )
    paraphrases: Literal["first", "rotate"] = Field(
        "first", description="first: each prompt in its first wording; rotate: in another wording for each image"
    )
    samples_per_prompt: int = Field(1, ge=1, description="answers to each question; at temperature 0 all are the same")
    chunk_images: int = operational(64, ge=1, description="images of a chunk, which is committed as a whole")
    ray: StageRayConfig = operational(default_factory=StageRayConfig, description="how the work is spread")

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[ModelReference, ...]) -> tuple[ModelReference, ...]:
        names = [reference.name or reference.model for reference in models]
        if len(set(names)) < len(names):
            raise ValueError("two models have the same name; give each a name of its own")
        return models

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not self.models and not self.tables:
            raise ValueError("models is empty and there are no tables: name at least one model or table")
        names = [table.name for table in self.tables]
        if len(set(names)) < len(names):
            raise ValueError("two tables have the same name; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _weights_count(self) -> Self:
        if self.mix == "cross" and any(reference.weight != 1 for reference in self.models):
            raise ValueError("a model has a weight, which needs mix: split")
        return self
