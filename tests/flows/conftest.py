"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from tests.flows.project import write_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose stages have all run; look, and change nothing."""
    config = write_project(tmp_path_factory.mktemp("finished"))
    assert main(["run", str(config)]) == 0
    return config
