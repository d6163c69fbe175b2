"""Which commit a branch or tag of the Hugging Face hub stands for.

The hub's client remembers that in its cache, `models--ORG--NAME/refs/BRANCH`. What stands there counts, so that a
store's captions stay those of one commit until the user says otherwise (by a pin, or by removing the ref). If
nothing does, the hub is asked once, for a few seconds at most, and the answer is put there, as its client would.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from pathlib import Path

MAIN = "main"
SECONDS = 3.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str) -> bool:
    """Whether a revision names one commit, in full."""
    return _COMMIT.fullmatch(revision) is not None


@lru_cache(maxsize=64)  # once in a run: neither stages nor workers may see another
def commit_of(model: str, revision: str) -> str:
    """The commit, or the revision as it is where nobody knows: without a network, or without such a model."""
    if is_commit(revision):
        return revision
    ref = _ref(model, revision)
    if ref is None:
        return revision
    if ref.is_file() and is_commit(known := ref.read_text(encoding="utf8").strip()):
        return known
    asked = _ask(model, revision)
    if asked is None:
        return revision
    _remember(ref, asked)
    return asked


def _ref(model: str, revision: str) -> Path | None:
    """Where the client keeps the commit; None without a client, or for what is no name."""
    try:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name
    except ImportError:
        return None
    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model") / "refs"
    ref = refs / revision
    return ref if ref.resolve().is_relative_to(refs.resolve()) else None


def _ask(model: str, revision: str) -> str | None:
    """The hub's answer; None if it is offline, refuses, or takes too long (finding its address has no time limit)."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    commits: list[str] = []

    def ask() -> None:
        try:
            sha = HfApi().model_info(model, revision=revision, timeout=SECONDS).sha
        except Exception:  # of whichever client, proxy or resolver: then the name itself is what is known
            return
        if sha:
            commits.append(sha)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return commits[0] if commits and is_commit(commits[0]) else None


def _remember(ref: Path, commit: str) -> None:
    """For the next run, on this machine; a cache that cannot be written is no reason to stop."""
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="utf8")
    except OSError:
        pass
