"""Settings of the evaluate stage. Light on purpose: reading a configuration must not import torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config import Section, Seed, added, operational

BRANCHES = "branches"  # short for one readout per branch
DenseMap = Literal["patches", "value_attention", "attended"]
_NAMED = ("mean", "paper_mean", "max", "weighted", BRANCHES, "rerank")


class SuiteAt(Section):
    """A suite (docs/evaluation.md), and where its files lie on this machine."""

    suite: str = Field(description="its name, such as coco_karpathy_5k, or the path of its YAML file")
    root: str | None = Field(None, description="folder of its files; empty: where `holism fetch` put them")
    name: str | None = Field(
        None, pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="what results call it; empty: the suite's own name"
    )
    images: str | None = Field(
        None, description="folder of its pictures, where they do not lie with the other files; absolute, or in root"
    )


class EvaluateConfig(Section):
    """What is measured, and on what.

    The benchmarks and the places of models are operational because their *content* enters the stage's identity: moving
    a folder changes nothing, changing a label does.
    """

    benchmarks: tuple[str | SuiteAt, ...] = operational(
        (),
        description="what is measured on: benchmark folders, suites as NAME=FOLDER or {suite: NAME, root: FOLDER}, or "
        "YAML files of suites (docs/evaluation.md)",
    )
    models: dict[str, str] = operational(
        default_factory=dict,
        description="models of others to measure beside the runs, by the name they get: a folder (Holism, open_clip, "
        "transformers CLIP or SigLIP, ONNX export), a checkpoint, or open_clip:MODEL:TAG (docs/evaluation.md)",
    )
    runs: bool = added(
        True, description="whether the runs of train are measured too; without section ingest there are none"
    )
    weights: Literal["last", "best", "ema"] = added(
        "last",
        description="of each run the model of its last step, the best one on the way (train.best), or the averaged "
        "weights (train.ema)",
    )
    readouts: tuple[str, ...] = Field(
        ("mean", "paper_mean", "max", "weighted", BRANCHES, "rerank"),
        description="how an image becomes scores: mean (served), paper_mean, max, weighted (weights learnt "
        "on half of the queries, for the other half), branch:NAME, branches, and rerank where the model has a "
        "second score",
    )
    rerank_depth: int = Field(64, ge=1, description="candidates of the served vector that rerank puts in order")
    ks: tuple[int, ...] = Field((1, 5, 10), description="cut-offs of recall@k")
    probes: tuple[Literal["linear"] | Annotated[int, Field(ge=1)], ...] = added(
        ("linear", 1, 4, 16),
        description="linear classifiers of frozen vectors, where a benchmark has a training split: fitted on all of "
        "it, or on so many images of each class",
    )
    dense_maps: tuple[DenseMap, ...] = added(
        ("patches", "attended"),
        description="what stands for the patches of a picture where a benchmark has masks: patch tokens, tokens of "
        "value attention, what a branch attends to; the first is the headline, none leaves it out",
    )
    bootstrap_samples: int = Field(1000, ge=100, le=10**6, description="resamples behind each 95 % interval")
    feature_precision: Literal["float32", "float16"] = added(
        "float32", description="numbers that features are kept in; float16 takes half the disk and memory"
    )
    seed: Seed = Field(0, description="of the resamples and of the pictures that are shown")

    image_batch: int = operational(64, ge=1, description="images that are encoded together")
    text_batch: int = operational(128, ge=1, description="texts that are encoded together")
    feature_shard: int = operational(
        4096, ge=1, description="images or texts whose features are written together: what a kill can cost"
    )
    workers: int = operational(2, ge=1, le=512, description="threads of each process that decode images")
    processes: int = operational(
        1, ge=1, le=64, description="processes that encode, each with a GPU of its own where there are several"
    )
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.runs and not self.models:
            raise ValueError("evaluate.runs is false and evaluate.models is empty: name a model to measure")
        return self

    @field_validator("models")
    @classmethod
    def _have_names(cls, models: dict[str, str]) -> dict[str, str]:
        if any(not name.strip() or not place.strip() for name, place in models.items()):
            raise ValueError("expected a name and a place for each model")
        return models

    @field_validator("readouts")
    @classmethod
    def _known(cls, readouts: tuple[str, ...]) -> tuple[str, ...]:
        for readout in readouts:
            if readout not in _NAMED and not (readout.startswith("branch:") and readout != "branch:"):
                raise ValueError(f"found {readout!r}, expected {', '.join(_NAMED)} or branch:NAME")
        if "mean" not in readouts:
            raise ValueError("expected 'mean' among the readouts: it is what an index serves and a report opens with")
        return readouts

    @field_validator("ks")
    @classmethod
    def _positive(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or 1 not in ks:
            raise ValueError("expected cut-offs of at least 1, with 1 among them")
        return tuple(sorted(set(ks)))
