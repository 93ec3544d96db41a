"""Reply samples on their way to the playback ring."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .audio_ring import AudioRing
from .reply import Reply

Pcm = NDArray[np.float32]


class Outlet:
    """Writes as the ring has room, and nothing while the reply is only prepared.

    Without a ring nobody plays, so nothing is kept: the samples stand in the reply.
    """

    def __init__(self, ring: AudioRing | None, heard: Callable[[], int] | None = None) -> None:
        """See `Session` for `heard`; it counts as `ring.position` does."""
        self._ring = ring
        self._heard = heard
        self._waiting: deque[Pcm] = deque()
        self._first = 0 if ring is None else ring.written  # index of the reply's first sample
        self.held = False

    @property
    def unplayed(self) -> int:
        """Samples of the reply that have not left the ring."""
        return sum(map(len, self._waiting)) + (len(self._ring) if self._ring is not None else 0)

    @property
    def heard(self) -> int | None:
        """Samples of this reply that have left the loudspeaker; None if nobody plays."""
        return None if self._ring is None else max(0, self._position(self._ring) - self._first)

    @property
    def unheard(self) -> int:
        """Samples of the reply that have not left the loudspeaker."""
        if self._ring is None:
            return 0
        ahead = self._ring.written - max(self._first, self._position(self._ring))
        return sum(map(len, self._waiting)) + max(0, ahead)

    def _position(self, ring: AudioRing) -> int:
        return ring.position if self._heard is None else self._heard()

    def put(self, pcm: Pcm) -> None:
        """Take samples [S] of the reply."""
        if self._ring is not None:
            self._waiting.append(pcm)

    def deliver(self, reply: Reply | None) -> None:
        """Write what fits of the reply, unless it is only prepared."""
        if self.held:
            return
        while self._ring is not None and self._waiting:
            block = self._waiting.popleft()
            rest = block[self._ring.write(block) :]
            if len(rest):
                self._waiting.appendleft(rest)
                break
        if reply is not None:
            reply.delivered()

    def release(self, reply: Reply | None) -> None:
        """What was only prepared is wanted."""
        self.held = False
        self.deliver(reply)

    def silence(self) -> None:
        """Drop everything; what is played from now on belongs to a new reply."""
        self._waiting.clear()
        self.held = False
        if self._ring is not None:
            self._first = self._ring.flush()
