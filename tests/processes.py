"""Looking at processes, for tests in which some end."""

from __future__ import annotations

from pathlib import Path


def family(pid: int) -> list[int]:
    """Processes that descend from this one, whichever of its threads started them."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in [child, *family(child)]]


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
