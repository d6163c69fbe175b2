"""One dense progress line with rate and ETA, redrawn on a terminal and repeated every few seconds in a log.

Whoever listens to messages (Prefect's log) hears it as often as they want to.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from pipeline import messages
from pipeline.presentable import presentable

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 5.0


class Progress:
    """Counts work done against a known total.

    `done` is work that an earlier run finished: it counts towards the total and not towards the rate, so
    that the ETA of a resumed run is honest. Neither does time spent waiting, which `waited` is told of.
    """

    def __init__(self, label: str, total: int, unit: str, *, done: int = 0, stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._initial = self._count = done
        self._stream = stream or sys.stderr
        heard = messages.progress_seconds() if stream is None else None
        self._heard = heard is not None
        self._terminal = self._stream.isatty() and not self._heard
        self._pause = heard if heard is not None else TERMINAL_SECONDS if self._terminal else LOG_SECONDS
        self._start = time.monotonic()
        self._shown = self._waited = 0.0
        self._show("")

    def update(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more units; `note` is shown at the end of the line."""
        self._count += amount
        now = time.monotonic()
        if now - self._shown >= self._pause:
            self._show(note)

    def waited(self, seconds: float) -> None:
        """Leave so much of the time out of the rate: nothing could be done in it, such as while an engine starts."""
        self._waited += seconds

    def close(self, note: str = "") -> None:
        """Show the final state."""
        self._show(note, last=True)

    def _show(self, note: str, *, last: bool = False) -> None:
        self._shown = time.monotonic()
        line = presentable(self.line(note))
        if self._heard:
            messages.say(line)
            return
        if self._terminal:
            self._stream.write(f"\r\x1b[2K{line}" + ("\n" if last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def line(self, note: str = "") -> str:
        """The current state as text."""
        elapsed = max(time.monotonic() - self._start, 1e-6)
        rate = (self._count - self._initial) / max(elapsed - self._waited, 1e-6)
        share = 100 * self._count / self.total if self.total else 100.0
        left = duration((self.total - self._count) / rate) if rate > 0 else "?"
        timing = f"{duration(elapsed)}" if self._count >= self.total else f"{duration(elapsed)}, ETA {left}"
        shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        text = f"{self.label} {self._count:,}/{self.total:,} {self.unit} ({share:.0f} %) {shown}/s {timing}"
        return f"{text}  {note}" if note else text


def duration(seconds: float) -> str:
    """`75` → `1m15s`."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{secs:02d}s" if minutes else f"{secs}s"
