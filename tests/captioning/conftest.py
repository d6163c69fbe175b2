"""What the tests of captioning share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from captioning.engines.base import PROBE_ID, Answer, Request
from captioning.engines.child import ChildEngine


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts the requests that reach the engine, by (image, prompt)."""
    counter: Counter[tuple[str, str]] = Counter()
    submit = ChildEngine.submit

    def counted(self: ChildEngine, requests: Sequence[Request]) -> list[Future[Answer]]:
        counter.update((request.image_id, request.prompt) for request in requests if request.image_id != PROBE_ID)
        return submit(self, requests)

    monkeypatch.setattr(ChildEngine, "submit", counted)
    return counter
