"""The last seconds of a stream of samples, to be read again from any point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]


class Tape:
    """Samples are counted from the start of the stream; the last `capacity` are kept."""

    def __init__(self, capacity: int) -> None:
        self._buf: Pcm = np.zeros(capacity, np.float32)
        self.end = 0  # samples ever put on it

    @property
    def start(self) -> int:
        """The oldest sample kept."""
        return max(0, self.end - len(self._buf))

    def push(self, pcm: Pcm) -> None:
        """Append pcm [S]."""
        self.end += len(pcm)
        kept = pcm[-len(self._buf) :]
        self._buf[np.arange(self.end - len(kept), self.end) % len(self._buf)] = kept

    def read(self, start: int, stop: int) -> Pcm:
        """A copy of the samples start … stop - 1, those no longer kept left out."""
        assert stop <= self.end
        return self._buf[np.arange(max(start, self.start), stop) % len(self._buf)]
