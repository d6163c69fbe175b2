"""What the whole suite shares: one small Ray, because every start of it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_instance() -> Iterator[None]:
    """A quiet Ray of this machine with two logical CPUs; what runs meanwhile uses it as it is."""
    pytest.importorskip("ray")
    from captioning.config import RayConfig
    from captioning.ray_job import cluster

    with cluster(RayConfig(num_cpus=2)):
        yield
