"""A queue of samples between two threads, one writing and one reading, without a lock.

Two counters only grow, each written by one side. Flushing keeps that rule: the writer publishes
"drop everything before sample N" and the reader skips to N at its next read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

Pcm = NDArray[np.float32]


class AudioRing:
    """Fixed storage for `capacity` samples; nothing is allocated after construction."""

    def __init__(self, capacity: int) -> None:
        if capacity <= 0:
            raise ConfigError(f"a ring needs room for at least one sample, got {capacity}")
        self._buf: Pcm = np.zeros(capacity, np.float32)
        self._written = 0  # writer: samples ever stored
        self._drop_before = 0  # writer: samples below this index are never to be read
        self._read = 0  # reader: samples ever read or skipped

    def __len__(self) -> int:
        """Samples waiting to be read."""
        begin = max(self._read, self._drop_before)  # first: the counters only grow
        return self._written - begin

    @property
    def capacity(self) -> int:
        """Samples the ring can hold."""
        return len(self._buf)

    @property
    def written(self) -> int:
        """Samples ever stored: the index of the next one to be written."""
        return self._written

    @property
    def position(self) -> int:
        """Samples ever read or skipped: what lies before this index has left the ring."""
        return self._read

    def write(self, pcm: Pcm) -> int:
        """Append pcm [S]; returns the samples stored, fewer than S when full. Writer's thread."""
        room = len(self._buf) - (self._written - self._read)  # flushed samples free up once skipped
        n = min(len(pcm), room)
        start = self._written % len(self._buf)
        head = min(n, len(self._buf) - start)
        self._buf[start : start + head] = pcm[:head]
        self._buf[: n - head] = pcm[head:n]
        self._written += n  # last, so the reader never sees samples that are not there yet
        return n

    def read(self, out: Pcm) -> int:
        """Fill out [S] in place, silence where samples lack; returns the samples taken.

        Reader's thread; safe in an audio callback, as is `write`.
        """
        begin = max(self._read, self._drop_before)
        n = min(len(out), self._written - begin)
        start = begin % len(self._buf)
        head = min(n, len(self._buf) - start)
        out[:head] = self._buf[start : start + head]
        out[head:n] = self._buf[: n - head]
        out[n:] = 0
        self._read = begin + n  # last, so the writer never reuses samples still being copied
        return n

    def flush(self) -> int:
        """Drop everything written so far; returns the index of the next sample. Writer's thread.

        A read under way may still take what is dropped: `position` then ends at or before the
        index returned, so that nothing before it is ever mistaken for something after it.
        """
        self._drop_before = self._written
        return self._drop_before
