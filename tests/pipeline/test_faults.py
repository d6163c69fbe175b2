"""Faults from outside are one sentence that names the place, whoever met them and however they are wrapped."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from pipeline.errors import ConfigError, StoreError
from pipeline.faults import explained, outside_faults
from pipeline.storage import Location
from tests.flows.project import write_project

LIMITED = (
    "import resource, sys\nfrom flows.cli import main\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\nsys.exit(main(sys.argv[2:]))\n"
)


def no_space(path: str | None = "/data/x") -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (no_space(), "no space is left for /data/x; make room there"),
        (no_space(None), "temporary ones go to"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x may not be used by this user"),
        (OSError(errno.EROFS, "Read-only file system", b"/cd/x"), "/cd/x is on a file system that can only be read"),
        (OSError(errno.EMFILE, "Too many open files", "/x"), "ulimit -n"),
        (RuntimeError('IO Error: Could not write file "/spill/a": No space left on device'), "is left for /spill/a;"),
        (OSError("Error writing bytes to file. Detail: No space left on device"), "no space is left for the files"),
    ],
)
def test_faults_are_told_in_a_sentence(error: Exception, words: str) -> None:
    with pytest.raises(StoreError) as raised, outside_faults():
        raise error
    assert words in str(raised.value)


def test_what_is_no_fault_from_outside_is_left_as_it_is() -> None:
    for error in (KeyError("x"), OSError(errno.ENOENT, "No such file or directory"), ValueError("no")):
        assert explained(error) is None
        with pytest.raises(type(error)) as raised, outside_faults():
            raise error
        assert raised.value is error
    with pytest.raises(ConfigError, match="mine"), outside_faults():
        raise ConfigError("mine")


def test_the_fault_under_the_errors_of_ray_and_duckdb_is_found() -> None:
    import duckdb
    from ray.exceptions import RayTaskError

    for wrapped in (RayTaskError("f", "\x1b[36mTraceback", no_space()), RuntimeError("outer")):
        wrapped.__cause__ = no_space()
        assert str(explained(wrapped)).startswith("no space is left for /data/x")
    inner = StoreError("shard 3 was cut")
    assert explained(RayTaskError("f", "Traceback", inner)) is inner
    assert "set TMPDIR" in str(explained(duckdb.OutOfMemoryException("Out of Memory Error: failed to offload")))


@pytest.mark.parametrize("operation", ["write", "make_folder", "append"])
def test_what_cannot_be_written_names_the_place(tmp_path: Path, operation: str) -> None:
    (tmp_path / "file").write_text("x")
    place = Location.of(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match=f"{place}.*a file"):
        getattr(place, operation)(*{"write": [b"x"], "append": ["x"]}.get(operation, []))


@pytest.mark.parametrize(
    ("stage", "limit", "place"),
    [("ingest", 20_000, "/shards/000000.tar"), pytest.param("train", 60_000, "/train/", marks=pytest.mark.slow)],
)
def test_a_stage_without_room_ends_in_one_sentence_and_goes_on_afterwards(
    tmp_path: Path, stage: str, limit: int, place: str
) -> None:
    """A limit on the size of files stands for the full disk: everybody may set one."""
    config = write_project(tmp_path, train=16, heldout=4)
    settings = yaml.safe_load(config.read_text())
    settings["train"] |= {"workers": 1}
    config.write_text(yaml.safe_dump(settings))
    if stage == "train":
        assert main(["run", str(config), "--stages", "ingest,caption,curate"]) == 0
    limited = [sys.executable, "-c", LIMITED, str(limit), stage, str(config)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert place in done.stderr.splitlines()[-1]
    assert "it goes on where it stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    stages = f"ingest,caption,curate,{stage}" if stage == "train" else stage
    assert main(["run", str(config), "--stages", stages]) == 0


@pytest.mark.parametrize("workspace", ["/dev/null/x", "/tmp/" + "x" * 300])
@pytest.mark.parametrize("command", ["status", "ingest"])
def test_a_workspace_that_can_never_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workspace: str, command: str
) -> None:
    config = write_project(tmp_path, train=1, heldout=1)
    assert main([command, str(config), "--set", f"workspace={workspace}"]) == 2
    assert f"holism: error: the workspace {workspace}" in capsys.readouterr().err
