"""What the person at the terminal sees: lines that stay, and one that changes under them.

    -- listening (m: mute, Enter: stop the reply, q: quit)
    listening  |######....|

The changing line is drawn on terminals only; in a file or a pipe there are only lines that stay.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

REDRAW_S = 0.08
METER_WIDTH = 20
QUIETEST_DB = -60.0  # of the meter
FALL_DB_PER_BLOCK = 0.5  # so that a short sound can be seen
CLEAR = "\r\x1b[K"


class Meter:
    """The level of a microphone: its loudest sample, falling slowly."""

    def __init__(self) -> None:
        self.peak_db = QUIETEST_DB

    def push(self, block: Pcm) -> None:
        """Take a block [S] in ±1."""
        loudest = float(np.abs(block).max(initial=0.0))
        level = 20 * np.log10(max(loudest, 1e-9))
        self.peak_db = float(max(level, self.peak_db - FALL_DB_PER_BLOCK, QUIETEST_DB))

    def __str__(self) -> str:
        filled = round(METER_WIDTH * (1 - self.peak_db / QUIETEST_DB))
        return f"|{'#' * filled:.<{METER_WIDTH}}|"


class StatusLine:
    """Lines on `out`, the last one redrawn if it is a terminal."""

    def __init__(
        self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._clock = out or sys.stderr, clock
        self._live = self._out.isatty()
        self._shown, self._next = "", 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        shown, self._shown = self._shown, ""
        self._write(f"{CLEAR if shown else ''}{text}\n")
        self._next = 0.0

    def show(self, text: str) -> None:
        """What the changing line is; drawn now and then."""
        now = self._clock()
        if self._live and now >= self._next and text != self._shown:
            self._shown, self._next = text, now + REDRAW_S
            width = max(1, _columns(self._out) - 1)
            self._write(CLEAR + text[:width])

    def clear(self) -> None:
        """Take the changing line away, for somebody else to write there."""
        if self._shown:
            self._shown = ""
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


@contextmanager
def private_stderr() -> Iterator[None]:
    """Keep stderr for ourselves: PortAudio's libraries write there whenever a device goes away.

    What Python writes still appears; what anything else writes to descriptor 2 does not.
    """
    try:
        saved = os.dup(2)
    except OSError:  # closed by whoever started us
        yield
        return
    before, sink = sys.stderr, os.open(os.devnull, os.O_WRONLY)
    try:
        own = before.fileno() == 2
    except (OSError, ValueError, AttributeError):  # it does not go to descriptor 2 anyway
        own = False
    with os.fdopen(saved, "w", buffering=1, errors="backslashreplace") as kept:
        os.dup2(sink, 2)
        sys.stderr = kept if own else before
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(sink)
            sys.stderr = before
