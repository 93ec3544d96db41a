"""Reply samples on their way to the playback ring."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .audio_ring import AudioRing

Pcm = NDArray[np.float32]


class Outlet:
    """Writes as the ring has room, and nothing while the reply is only prepared.

    Without a ring nobody plays, so nothing is kept: the samples stand in the reply.
    """

    def __init__(self, ring: AudioRing | None) -> None:
        self._ring = ring
        self._waiting: deque[Pcm] = deque()
        self._first = 0 if ring is None else ring.written  # index of the reply's first sample
        self.held = False

    @property
    def unplayed(self) -> int:
        """Samples of the reply that nobody has played yet."""
        return sum(map(len, self._waiting)) + (len(self._ring) if self._ring is not None else 0)

    @property
    def played(self) -> int | None:
        """Samples of this reply that were played; None if nobody plays."""
        return None if self._ring is None else max(0, self._ring.position - self._first)

    def put(self, pcm: Pcm) -> None:
        """Take samples [S] of the reply."""
        if self._ring is not None:
            self._waiting.append(pcm)

    def deliver(self) -> None:
        """Write what fits."""
        while self._ring is not None and self._waiting and not self.held:
            block = self._waiting.popleft()
            rest = block[self._ring.write(block) :]
            if len(rest):
                self._waiting.appendleft(rest)
                return

    def silence(self) -> None:
        """Drop everything; what is played from now on belongs to a new reply."""
        self._waiting.clear()
        self.held = False
        if self._ring is not None:
            self._first = self._ring.flush()
