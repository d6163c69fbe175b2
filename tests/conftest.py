"""What the whole suite shares: one small Ray, because every start of it costs seconds; and who runs what."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; tests press Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


_SERVICES = ("vllm", "ray", "prefect")  # of which the suite has one each


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the suite (pytest -n), one has all tests of services; else files stay whole."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        shared = "ray_instance" in fixtures or any(item.get_closest_marker(name) for name in _SERVICES)
        item.add_marker(pytest.mark.xdist_group("services" if shared else item.location[0]))


@pytest.fixture(scope="session")
def ray_instance() -> Iterator[Any]:
    """A quiet Ray cluster of two nodes on this machine, one logical CPU each; what runs meanwhile uses it as it is.

    Whoever adds nodes takes them away again.
    """
    pytest.importorskip("ray")
    from pipeline.cluster.config import ClusterConfig
    from pipeline.cluster.connection import connected, prepare

    prepare()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # its processes inherit it; 2 s by default
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    try:
        with connected(ClusterConfig(address=nodes.address)):
            yield nodes
    finally:
        nodes.shutdown()
