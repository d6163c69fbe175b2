"""Shared pieces of the training tests: tiny towers and reproducible tensors."""

from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_architecture() -> dict[str, Any]:
    """Towers small enough for a unit test: 16 patches, two layers."""
    return {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
