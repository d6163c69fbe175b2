"""The progress line: honest rates and ETAs, one line on a terminal, a few in a log."""

from __future__ import annotations

import io

import pytest

from pipeline import progress as module
from pipeline.messages import heard_by
from pipeline.progress import Progress, duration


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_rate_and_eta(clock: Clock) -> None:
    progress = Progress("caption", 1000, "images", stream=io.StringIO())
    clock.now += 10
    progress.update(250)
    assert progress.line() == "caption 250/1,000 images (25 %) 25/s 10s, ETA 30s"
    assert progress.line("3 errors").endswith("  3 errors")
    clock.now += 30
    progress.update(750)
    assert progress.line() == "caption 1,000/1,000 images (100 %) 25/s 40s"


def test_work_of_an_earlier_run_does_not_count_towards_the_rate(clock: Clock) -> None:
    progress = Progress("caption", 1000, "images", done=900, stream=io.StringIO())
    assert "900/1,000 images (90 %) 0/s 0s, ETA ?" in progress.line()
    clock.now += 10
    progress.update(10)
    assert progress.line() == "caption 910/1,000 images (91 %) 1/s 10s, ETA 1m30s"


def test_time_spent_waiting_does_not_count_towards_the_rate(clock: Clock) -> None:
    progress = Progress("caption", 100, "captions", stream=io.StringIO())
    clock.now += 90
    progress.waited(80)
    progress.update(50)
    assert progress.line() == "caption 50/100 captions (50 %) 5/s 1m30s, ETA 10s"


def test_whoever_listens_hears_a_line_every_half_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    heard = list[str]()
    with heard_by(lambda line, _: heard.append(line)):
        progress = Progress("x", 100, "images")
        for _ in range(100):
            clock.now += 1
            progress.update()
        progress.close()
    assert [line.split()[1] for line in heard] == ["0/100", "30/100", "60/100", "90/100", "100/100"]
    heard.clear()
    with heard_by(lambda line, _: heard.append(line), progress_seconds=50):
        progress = Progress("x", 100, "images")
        for _ in range(100):
            clock.now += 1
            progress.update()
    assert [line.split()[1] for line in heard] == ["0/100", "50/100", "100/100"]
    assert capsys.readouterr().err == ""


def test_nothing_to_do_is_complete(clock: Clock) -> None:
    assert "0/0 images (100 %)" in Progress("x", 0, "images", stream=io.StringIO()).line()


def test_a_log_gets_a_line_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("x", 100, "images", stream=stream)
    for _ in range(100):
        clock.now += 0.1
        progress.update()
    progress.close("done")
    lines = stream.getvalue().splitlines()
    assert 3 <= len(lines) <= 4
    assert lines[-1].startswith("x 100/100 images")
    assert lines[-1].endswith("done")
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_is_redrawn(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress("x", 10, "images", stream=stream)
    for _ in range(10):
        clock.now += 1
        progress.update()
    progress.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\r") == 12


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (75, "1m15s"), (3599.6, "1h00m"), (3600 * 30 + 60, "30h01m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
