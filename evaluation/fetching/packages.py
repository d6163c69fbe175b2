"""Packages of npm's and Debian's registries, by their own clients, which check what they get."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError

SECONDS = 1800  # that a client may take


class CannotFetchError(InputError):
    """A package cannot be had on this machine."""


@dataclass(frozen=True)
class Npm:
    """A package of npm's registry, in one version."""

    name: str
    version: str
    licence: str

    def unpack(self, work: Path) -> Path:
        """Get and unpack it below `work`; returns its folder."""
        folder = _folder(work, self.name)
        _run(["npm", "pack", f"{self.name}@{self.version}", "--silent"], folder)
        with tarfile.open(_one(folder, ".tgz", self.name)) as tar:
            tar.extractall(folder, filter="data")
        return folder / "package"


@dataclass(frozen=True)
class Deb:
    """A package of Debian, in the version that this machine's sources have."""

    name: str
    licence: str

    def unpack(self, work: Path) -> Path:
        """Get and unpack it below `work`, without installing it; returns the folder that stands for `/`."""
        folder = _folder(work, self.name)
        _run(["apt-get", "download", self.name], folder)
        _run(["dpkg-deb", "-x", str(_one(folder, ".deb", self.name)), "root"], folder)
        return folder / "root"


Package = Npm | Deb


def _folder(work: Path, name: str) -> Path:
    folder = work / name.replace("/", "-").lstrip("@")
    folder.mkdir(parents=True)
    return folder


def _one(folder: Path, suffix: str, name: str) -> Path:
    found = sorted(folder.glob(f"*{suffix}"))
    if len(found) != 1:
        raise CannotFetchError(f"the package {name} came as {len(found)} files; expected one that ends in {suffix}")
    return found[0]


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise CannotFetchError(f"{command[0]} is not installed, and {' '.join(command[:3])} needs it")
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotFetchError(f"{' '.join(command[:3])} took more than {SECONDS // 60} minutes") from error
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise CannotFetchError(f"{' '.join(command[:3])} failed: {said[0].strip()}")
