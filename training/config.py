"""Settings of the train stage.

`RunConfig` is one recipe; `TrainConfig` is a recipe plus named variations of it, trained side by side, each with its
own commit. Light on purpose: reading a configuration must not import torch.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config import Section, Seed, added, build, merge, operational
from pipeline.errors import ConfigError
from training.crops import CropScale
from training.distillation_settings import Distillation
from training.launch_settings import Launch
from training.slots import DEFAULT_SLOTS, Slot, SlotField, named_slot
from training.towers import can_be_looked_up, resolve_architecture
from training.watch import Best, Evaluation, Sinks, checked_sinks

BranchKind = Literal["cls", "mlp", "query"]
Isolation = Literal["none", "tokens", "full", "paper"]
Projection = Literal["shared", "branch"]
TERM_NAMES = tuple(sorted(term.name for term in iter_modules([str(Path(__file__).parent / "losses" / "terms")])))

# The terms in which an image's captions stand in a softmax, and hard negatives beside them.
SOFTMAX_TERMS = (
    *("free_matching", "free_matching_balanced", "free_matching_soft"),
    *("best_branch", "m2m", "multi_positive", "o2m", "o2o", "served"),
)


@dataclass(frozen=True)
class BranchOptions:
    """How the image side branches (`training.branches`).

    What is left out is as it was before there were kinds; `RunConfig` has the defaults of training.
    """

    kind: BranchKind = "cls"
    isolation: Isolation = "tokens"
    projection: Projection = "shared"
    blocks: int = 3


def loader_workers() -> int:
    """one for each of a rank's cores beyond the first, 1 to 8"""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(max(cores // ranks - 1, 1), MOST_WORKERS)


MOST_WORKERS = 8  # by default; decoding rarely keeps more busy


class RunConfig(Section):
    """One training recipe. Its defaults are CLIP's; PAPER 2 names the paper's."""

    model: str | dict[str, Any] = Field("ViT-B-32", description="open_clip model name, or its towers spelled out")
    warm_start: str | None = Field(
        None,
        description="weights to start from: a path (open_clip, ours, a transformers CLIP) or open_clip:TAG",
    )
    context_length: int | None = Field(None, ge=4, le=248, description="text tokens; empty: the model's own (77)")
    slots: tuple[SlotField, ...] = Field(
        tuple(named_slot(name) for name in DEFAULT_SLOTS),
        validate_default=True,
        description="the captions of a sample, each by its name or by what fills it; a branch bears its slot's name",
    )
    branches: int | None = Field(
        None, ge=1, le=1024, description="image embeddings; empty: one for each slot, bearing its name"
    )
    branch_kind: BranchKind = Field("mlp", description="what a branch is: a class token, MLP layers, or a query")
    branch_blocks: int = Field(1, ge=1, description="the last blocks that branch, of kinds mlp and query")
    isolation: Isolation = Field("tokens", description="what the class tokens of kind cls may attend to")
    projection: Projection = Field("branch", description="into the joint space: one for all branches, or one for each")
    losses: dict[str, float] = Field({"m2m": 1.0, "served": 1.0}, description="weight of each loss term")
    captions_per_image: int | None = Field(
        None, ge=1, description="captions drawn for each image and step; empty: all"
    )
    hard_negatives: int = added(
        0,
        ge=0,
        le=64,
        description="false captions for each image and step, made by exchanging words (English); 0: none",
    )

    epochs: int = Field(32, ge=1, description="passes over the images")
    global_batch: int = Field(1024, ge=2, le=2**24, description="images per step over all ranks")
    lr: float = Field(5e-4, gt=0, le=10, description="highest learning rate; it falls by a cosine")
    warmup_steps: int = Field(2000, ge=0, description="steps in which the learning rate rises to its highest")
    weight_decay: float = Field(0.2, ge=0, description="AdamW's, of all weight matrices")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first momentum")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW's second momentum")
    eps: float = Field(1e-6, gt=0, description="AdamW's epsilon")
    grad_clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; empty: unlimited")
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="of the arithmetic: bf16 with weights in fp32, or fp32"
    )
    image_mean: tuple[float, float, float] = Field(
        (0.48145466, 0.4578275, 0.40821073), description="mean of each colour, which is subtracted; CLIP's"
    )
    image_std: tuple[float, float, float] = Field(
        (0.26862954, 0.26130258, 0.27577711),
        description="standard deviation of each colour, which is divided by; CLIP's",
    )
    crop_scale: CropScale = Field((0.9, 1.0), description="share of the image's area a training crop keeps")
    canvas: int | None = Field(
        None, ge=8, le=8192, description="side of images before cropping; empty: 8/7 of what the model takes"
    )
    shuffle: Literal["auto", "global", "blocks"] = added(
        "auto",
        description="the order of images: global, or by blocks of shards, of which each is read once an epoch; auto: "
        "by blocks where shards are on an object store",
    )
    shuffle_window: int = added(
        32768, ge=1, le=2**30, description="images that are mixed at a time, where the order is by blocks"
    )
    seed: Seed = Field(0, description="of weights, order, crops and the draw of captions")

    freeze: tuple[Literal["image", "text"], ...] = added(
        (),
        description="towers whose weights stay as they came (locked-image tuning), all but what several branches own",
    )
    layer_decay: float = added(
        1.0, gt=0, le=1, description="the learning rate of each block as a share of the next one's; 1: all alike"
    )
    ema: float | None = added(
        None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, kept beside the last ones, such as 0.999; empty: none",
    )
    distillation: Distillation = added(Distillation(), description="views of the loss term distillation")

    activation_checkpointing: bool = operational(
        False, description="keep only the tokens between blocks, and make all else again in backward"
    )
    compile: bool = operational(False, description="compile the towers with torch.compile, for GPUs")
    cache_features: bool = operational(
        False,
        description="make each picture's embedding once, keep it on this machine beside the index, and train without "
        "reading pictures again; for a frozen image tower of one branch with crop_scale: [1, 1]",
    )
    micro_batch: int | None = operational(
        None,
        ge=1,
        description="images per rank whose activations are in memory at once, at the price of a second forward pass; "
        "empty: all of a rank's share",
    )
    checkpoint_every: int = operational(1000, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float | None = operational(
        None, gt=0, description="a checkpoint also after so many minutes, at the next look (log_every)"
    )
    keep_checkpoints: int = operational(2, ge=1, description="checkpoints that are kept; older ones are removed")
    evaluation: Evaluation = operational(default_factory=Evaluation, description="measuring the model on the way")
    best: Best | None = operational(None, description="keep the best evaluated model too; empty: the last only")
    sinks: Sinks = operational(
        {},
        description="where figures go beside metrics.jsonl, each with its options: tensorboard, or MODULE:NAME",
    )
    log_every: int = operational(10, ge=1, description="steps between looks at the device; every step is logged")
    workers: int = operational(
        default_factory=loader_workers,
        ge=0,
        le=512,
        description="loader processes of each rank; 0: the training process loads",
    )
    index: str | None = operational(
        None, description="folder of each machine for the training index; empty: in the workspace, if that is local"
    )
    shard_cache: str | None = operational(
        None,
        description="folder of each machine for parts of shards that are on an object store; empty: in the workspace, "
        "if that is local",
    )
    shard_cache_gb: float = operational(
        20.0, gt=0, description="the most that these parts take on a machine's disk, GB"
    )
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")
    threads: int | None = operational(None, ge=1, le=4096, description="CPU threads of torch; empty: torch's choice")

    @field_validator("slots")
    @classmethod
    def _distinct(cls, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        names = [slot.name for slot in slots]
        if not names or len(set(names)) < len(names):
            raise ValueError("expected at least one slot, and no name twice")
        by_captions: dict[tuple[str, str | None], str] = {}
        for slot in slots:
            other = by_captions.setdefault((slot.perspective, slot.granularity), slot.name)
            if other != slot.name:
                raise ValueError(f"{other} and {slot.name} want the same captions, of which the first would get all")
        return slots

    @field_validator("sinks")
    @classmethod
    def _are_sinks(cls, sinks: Sinks) -> Sinks:
        return checked_sinks(sinks)

    @field_validator("image_std")
    @classmethod
    def _divides(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
            raise ValueError("expected three numbers above 0, as colours are divided by them")
        return std

    @field_validator("losses")
    @classmethod
    def _some_loss(cls, losses: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(losses.keys() - set(TERM_NAMES)):
            raise ValueError(f"no loss term is called {unknown[0]}; expected some of {', '.join(TERM_NAMES)}")
        if not losses or any(weight <= 0 for weight in losses.values()):
            raise ValueError("expected at least one term, each with a weight above 0 (leave out what is not wanted)")
        return losses

    @model_validator(mode="after")
    def _losses_fit(self) -> "RunConfig":
        count = len(self.branch_names)
        if count > 1 and (single := {"o2o", "o2m"} & set(self.losses)):
            raise ValueError(f"{sorted(single)[0]} needs one branch, found {count}; set branches: 1 or use m2m")
        if "m2m" in self.losses and count != len(self.slots):
            raise ValueError(f"m2m needs a branch per slot, found {count} for {len(self.slots)}; use free_matching")
        if "diversity" in self.losses and (count == 1 or len(self.losses) == 1):
            raise ValueError("diversity only keeps several branches apart; set branches above 1 and add another term")
        if set(self.losses) == {"text_conditioned"}:
            raise ValueError("text_conditioned re-ranks what another term has to find; add one, such as served")
        if self.has_teacher and len(self.losses) == 1:
            raise ValueError("distillation follows a teacher that other terms have to teach; add one, such as served")
        if self.has_teacher and self.ema is None:
            raise ValueError("distillation has the averaged weights as its teacher; set ema, such as 0.999")
        if "tokens" in self.losses and set(self.losses) <= {"tokens", "diversity"}:
            raise ValueError("tokens teaches the image side alone; add a term that compares captions, such as served")
        return self

    @model_validator(mode="after")
    def _negatives_have_a_softmax(self) -> "RunConfig":
        if self.hard_negatives and not set(self.losses) & set(SOFTMAX_TERMS):
            raise ValueError(
                f"hard_negatives stand in a softmax over captions, which {', '.join(self.losses)} does not have; add "
                f"one of {', '.join(SOFTMAX_TERMS)}, or set hard_negatives: 0"
            )
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> "RunConfig":
        if self.best and not self.evaluation.every:
            raise ValueError("best is chosen by evaluations; set evaluation.every, or leave best out")
        if self.best and self.best.of_ema and self.ema is None:
            raise ValueError(f"best.figure {self.best.figure} is of averaged weights; set ema, such as 0.999")
        return self

    @model_validator(mode="after")
    def _pictures_stay_the_same(self) -> "RunConfig":
        reasons = {
            "the image tower is trained; set freeze: [image]": "image" not in self.freeze,
            "several branches own weights in it, which are trained; set branches: 1": len(self.branch_names) > 1,
            "each epoch crops anew; set crop_scale: [1, 1], which takes all of a picture": self.crop_scale != (1, 1),
            "text_conditioned reads the patches; leave it out": self.has_text_pooling,
            "distillation crops each picture anew; set distillation.crops: 0": self.has_teacher
            and self.distillation.crops > 0,
        }
        if self.cache_features and (found := [reason for reason, holds in reasons.items() if holds]):
            raise ValueError(f"cache_features needs embeddings that stay the same, but {found[0]}")
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> "RunConfig":
        if self.freeze and not self.warm_start:
            raise ValueError(f"freeze: [{', '.join(self.freeze)}] keeps untrained weights as they are; set warm_start")
        if set(self.freeze) == {"image", "text"} and len(self.branch_names) == 1:
            raise ValueError("freeze: [image, text] leaves a model of one branch nothing to learn; leave one out")
        if self.has_token_head and "image" in self.freeze and len(self.branch_names) == 1:
            raise ValueError("tokens teaches the image side, of which freeze: [image] leaves nothing; leave one out")
        return self

    @model_validator(mode="after")
    def _towers_can_be_built(self) -> "RunConfig":
        if not can_be_looked_up(self.model):
            return self
        try:
            vision = resolve_architecture(self.model, self.context_length)["vision_cfg"]
        except ConfigError as error:
            raise ValueError(str(error)) from error
        layers = vision.get("layers", 12)
        if self.branch_kind != "cls" and len(self.branch_names) > 1 and self.branch_blocks > layers:
            raise ValueError(
                f"branch_blocks is {self.branch_blocks}, but the image tower has {layers} blocks; lower it"
            )
        return self

    @property
    def branch_options(self) -> BranchOptions:
        return BranchOptions(self.branch_kind, self.isolation, self.projection, self.branch_blocks)

    @property
    def has_text_pooling(self) -> bool:
        """Whether the model has the second score: if it is trained."""
        return "text_conditioned" in self.losses

    @property
    def has_teacher(self) -> bool:
        """Whether the averaged weights teach."""
        return "distillation" in self.losses

    @property
    def has_token_head(self) -> bool:
        """Whether the model has a token head while it is trained."""
        return "tokens" in self.losses

    @property
    def branch_names(self) -> tuple[str, ...]:
        """Branch i bears slot i's name; branches beyond the slots are free; a lone one for all slots is `image`."""
        slots = tuple(slot.name for slot in self.slots)
        count = self.branches or len(slots)
        if count == 1 and len(slots) > 1:
            return ("image",)
        return slots[:count] + tuple(f"free_{i}" for i in range(len(slots), count))


class TrainConfig(RunConfig):
    """One recipe, and the runs that vary it. Each run names only what differs."""

    launch: Launch = operational(default_factory=Launch, description="which processes train")
    runs: dict[str, dict[str, Any]] = Field(
        {"holism": {}}, description="the models to train, by name: what differs from the recipe"
    )

    @field_validator("runs")
    @classmethod
    def _named(cls, runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not runs:
            raise ValueError("expected at least one run, such as holism: {}")
        bad = [name for name in runs if not name.replace("_", "").replace("-", "").isalnum()]
        if bad:
            raise ValueError(f"run name {bad[0]!r} may hold letters, digits, - and _ only")
        return runs

    @model_validator(mode="after")
    def _runs_are_recipes(self) -> "TrainConfig":
        for name in self.runs:
            try:
                self.run(name)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _workers_fit(self) -> "TrainConfig":
        workers = self.launch.ray
        if workers is None:
            return self
        for name in self.runs:
            recipe = self.run(name)
            if recipe.device == "cuda" and workers.gpus == 0:
                raise ValueError("device is cuda, but launch.ray.gpus is 0; set it to 1, or device to cpu")
            if recipe.global_batch < workers.workers[1]:
                raise ValueError(
                    f"launch.ray.workers may become {workers.workers[1]}, but run {name} has a global_batch of "
                    f"{recipe.global_batch}, which leaves some of them no image; lower it, or raise global_batch"
                )
        return self

    def run(self, name: str) -> RunConfig:
        """The full recipe of one run."""
        recipe = {field: getattr(self, field) for field in RunConfig.model_fields if field in self.model_fields_set}
        plain = {key: _plain(value) for key, value in recipe.items()}
        # Terms and towers are replaced whole: a run that names its losses does not keep the recipe's.
        whole: dict[str, Any] = {key: self.runs[name][key] for key in ("losses", "model") if key in self.runs[name]}
        return build(RunConfig, {**merge(plain, self.runs[name]), **whole}, source=f"train.runs.{name}")


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
