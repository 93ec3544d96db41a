"""What an export tells whoever waits for it."""

from __future__ import annotations

import threading
from typing import Protocol


class Progress(Protocol):
    """The ear of an export; every method may be called from the exporting thread at any time."""

    def step(self, what: str, number: int, count: int) -> None:
        """`what` comes next; `number` of `count` steps are done."""
        ...

    def advance(self, done: int, total: int) -> None:
        """So many of all weights to be written have been read. Any thread may call this."""
        ...

    def note(self, text: str) -> None:
        """Something worth knowing."""
        ...


class Silence:
    """Nobody listens."""

    def step(self, what: str, number: int, count: int) -> None:
        """Ignored."""

    def advance(self, done: int, total: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


class Counter:
    """Adds up what several threads have read."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """`count` more weights."""
        with self._lock:
            self._done += count
            self._progress.advance(self._done, self._total)
