"""Settings of the caption stage: which models are asked which questions, how, and with what resources.

What decides a caption's text is semantic. Engines, Ray and chunk sizes are operational, except the engine's kind (a
run of the fake engine must never pass for one of a real model) and those of its options that change answers.
"""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from captioning.engine_options import OF_TRANSFORMERS, OPERATIONAL
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

    set: str = "paper"
    only: tuple[str, ...] | None = None
    sample: int | None = Field(None, ge=1)
    seed: Seed = 0


class ModelReference(Section):
    """A vision-language model: `demo_vlm`, a folder, or a hub id with its revision.

    `name` is what the captions table calls it (the folder's name or the hub id if empty). A folder's revision is
    found from its content. `weight` is its share of the images where models split them.
    """

    model: str
    name: str | None = None
    revision: str | None = None
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class SamplingConfig(Section):
    """How text is drawn. Temperature 0 is greedy; then `top_p` and `seed` change nothing and are left out of ids."""

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: Seed = 0
    max_tokens: int | None = Field(None, gt=0)  # instead of each prompt's own budget


class FakeEngineConfig(Section):
    """Behaviour and faults of the fake engine. Image ids are those of the images table."""

    at_once: int = operational(1, ge=1)  # questions it claims to answer together: decides how many chunks are in hand
    raise_on: tuple[str, ...] = operational(())  # images on which a request raises
    die_on: tuple[str, ...] = operational(())  # images on which the process dies by SIGKILL
    die_at_call: int | None = operational(None, ge=1)  # the process dies when asked for the n-th time; with a ledger
    # the calls of all processes count, so that only one of them dies
    delay_seconds: float = operational(0.0, ge=0)  # per call
    start_seconds: float = operational(0.0, ge=0)  # that loading takes
    ledger: str | None = operational(None)  # a file to which every call adds process, questions and output tokens


class ServerConfig(Section):
    """An OpenAI-compatible server. Its key is read from the environment and written nowhere."""

    base_url: str = operational("http://127.0.0.1:8000/v1")
    api_key_env: str = operational("OPENAI_API_KEY")  # name of the variable; unset: no key
    concurrency: int = operational(64, ge=1, le=1000)  # requests under way from each actor
    timeout_seconds: float = operational(120.0, gt=0)  # of one try
    retries: int = operational(5, ge=0)  # after timeouts, lost connections, 429 and 5xx; with growing, random waits

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://127.0.0.1:8000/v1")
        return url.rstrip("/")


class EngineConfig(Section):
    """What serves the models. `auto` is vLLM where it is installed, else transformers."""

    kind: Literal["auto", "vllm", "openai", "transformers", "fake"] = "auto"
    tensor_parallel_size: int = operational(1, ge=1)
    max_model_len: int | None = operational(None, gt=0)
    max_num_seqs: int = operational(256, ge=1)  # requests that vLLM decodes together
    gpu_memory_utilization: float = operational(0.9, gt=0, le=1)
    batch_size: int = operational(16, ge=1)  # of the transformers engine
    options: dict[str, Any] = partly_operational(OPERATIONAL)  # more of vllm.LLM; transformers: trust_remote_code
    server: ServerConfig = operational(default_factory=ServerConfig)  # for kind openai
    fake: FakeEngineConfig = operational(default_factory=FakeEngineConfig)

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
        found: dict[str, Any] = semantic(self).get("options", {})
        return found


class ActorsConfig(Section):
    """One engine per actor. `max` empty: all GPUs; without GPUs two, as every engine takes memory of its own.

    All actors start at once, unless `min` says with how many to begin; more come while work is waiting.
    """

    min: int | None = operational(None, ge=1)
    max: int | None = operational(None, ge=1)
    cpus: float = operational(1.0, gt=0)  # also the threads of an engine on a CPU
    gpus: float | None = operational(None, ge=0)  # empty: the tensor parallel size where there are GPUs
    resources: dict[str, float] = operational(default_factory=dict)  # the cluster's own, such as {big_memory: 1}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.min is not None and self.max < self.min:
            raise ValueError(f"max is {self.max}, expected at least min, which is {self.min}")
        return self


class RayConfig(Section):
    """Where the work runs. Without an address (and without RAY_ADDRESS) a Ray of this machine alone is started."""

    enabled: bool = operational(True)  # false, or Ray not installed: one engine in this process
    address: str | None = operational(None)
    num_cpus: int | None = operational(None, ge=1)  # logical CPUs of a Ray that is started here
    actors: ActorsConfig = operational(default_factory=ActorsConfig)
    schedule_seconds: float = operational(20.0, gt=0)  # how long the cluster may take to find room


class TableColumns(Section):
    """Which columns of a table of captions hold what, by name or by number, counted from 0.

    A text column may hold lists of captions.
    """

    image: Column
    text: Column
    shard: Column | None = None  # beside a key, where keys are not unique over shards
    perspective: Column | None = None
    granularity: Column | None = None
    level: Column | None = None


class TableConfig(Section):
    """Captions of others. `perspective`, `granularity` and `level` are those of rows whose column has or says none.

    `header` says whether the first line of a csv or tsv names the columns (empty: unless all are given by number), and
    `encoding` how texts are read that are neither UTF-8 nor marked as UTF-16.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    path: str  # a file, a folder or a glob, on any file system
    format: Literal["parquet", "jsonl", "csv", "tsv"] | None = None  # empty: by the suffix of the path
    columns: TableColumns
    match: Literal["image_id", "key", "source", "url"] = "image_id"  # the column of the images table
    perspective: str | None = None
    granularity: Granularity = "sentence"
    level: Level = "scene"
    header: bool | None = added(None)
    encoding: Encoding = added("utf-8")

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
    """The caption stage: images × prompts × models, and tables of captions beside or instead of models.

    `mix` says which model sees which image: `cross` all of them, `split` each image one, by the models' weights.
    """

    engine: EngineConfig = Field(default_factory=EngineConfig)
    models: tuple[ModelReference, ...] = (ModelReference(model=DEMO_VLM),)
    tables: tuple[TableConfig, ...] = ()
    mix: Literal["cross", "split"] = "cross"
    prompts: PromptSelection = Field(default_factory=PromptSelection)
    sampling: SamplingConfig = SamplingConfig()
    max_pixels: int = Field(1_048_576, ge=1024)  # larger images are scaled down before the engine
    paraphrases: Literal["first", "rotate"] = "first"  # the canonical wording, or one by image
    samples_per_prompt: int = Field(1, ge=1)
    chunk_images: int = operational(64, ge=1)  # images of one commit
    ray: RayConfig = operational(default_factory=RayConfig)

    @field_validator("models")
    @classmethod
    def _distinct(cls, models: tuple[ModelReference, ...]) -> tuple[ModelReference, ...]:
        names = [reference.name or reference.model for reference in models]
        if len(set(names)) < len(names):
            raise ValueError("two models have the same name; give each a name of its own")
        return models

    @model_validator(mode="after")
    def _somebody_speaks(self) -> Self:
        if not self.models and not self.tables:
            raise ValueError("models is empty and there are no tables: name at least one of either")
        names = [table.name for table in self.tables]
        if len(set(names)) < len(names):
            raise ValueError("two tables have the same name; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _weights_count(self) -> Self:
        if self.mix == "cross" and any(reference.weight != 1 for reference in self.models):
            raise ValueError("a model has a weight, which needs mix: split")
        return self
