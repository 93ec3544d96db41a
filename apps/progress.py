"""What long work says on stderr: a bar with the time left, or plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_WIDTH = 24  # of the bar
_EVERY_S = 0.1
_CLEAR = "\r\x1b[K"


class Lines:
    """For a log: one line for each step."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def step(self, what: str, number: int, count: int) -> None:
        """`what` comes next; `number` of `count` steps are done."""
        self._say(f"{number + 1}/{count} {what}")

    def advance(self, done: int, total: int) -> None:
        """Too much for a log."""

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self._say(text)

    def close(self) -> None:
        """Nothing is left to do."""

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


class Bar(Lines):
    """For a terminal: the same lines, and under them how far the whole work is.

    The time left is what the rest of the weights will take at the pace so far.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out)
        self._clock = clock
        self._began: float | None = None  # when the first weights had been read
        self._began_at = 0  # how many they were
        self._shown = float("-inf")

    def advance(self, done: int, total: int) -> None:
        """So many of all weights have been read."""
        now = self._clock()
        if self._began is None:
            self._began, self._began_at = now, done
        if now - self._shown < _EVERY_S and done < total:
            return
        self._shown = now
        share = done / total if total else 1.0
        bar = "#" * int(share * _WIDTH)
        left = self._left(now - self._began, done, total)
        self.out.write(f"{_CLEAR}[{bar:<{_WIDTH}}] {100 * share:3.0f} %{left}")
        self.out.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._began is not None:
            self.out.write(_CLEAR)
            self.out.flush()

    def _left(self, elapsed_s: float, done: int, total: int) -> str:
        read = done - self._began_at
        if elapsed_s < 1 or not read:
            return ""
        seconds = round(elapsed_s * (total - done) / read)
        return f"  {seconds // 60}:{seconds % 60:02d} left"

    def _say(self, text: str) -> None:
        super()._say(f"{_CLEAR}{text}")


@contextmanager
def progress() -> Iterator[Lines]:
    """On stderr while the block runs: a bar if it is a terminal, else lines."""
    shown = Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
    try:
        yield shown
    finally:
        shown.close()
