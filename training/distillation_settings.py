"""Settings of the loss term `distillation`: what the student sees, and how sure its teacher is.

Light: reading a configuration must not import torch.
"""

from pydantic import Field

from pipeline.config import Section
from training.crops import CropScale


class Distillation(Section):
    """What the student sees for the loss term distillation; its teacher sees whole pictures and all captions."""

    captions: int = Field(1, ge=1, description="captions that a view of the student holds, drawn from an image's own")
    crops: int = Field(
        0,
        ge=0,
        le=64,
        description="smaller crops of each picture, each a view of the student with captions of its own; 0: its one "
        "view is the step's own crop",
    )
    crop_scale: CropScale = Field((0.1, 0.5), description="share of the image's area that such a crop keeps")
    temperature: float = Field(
        1.0, gt=0, le=100, description="what the teacher's logits are divided by: below 1 it is surer than its weights"
    )
