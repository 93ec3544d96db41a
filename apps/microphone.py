"""The microphone as the conversation knows it: blocks of 10 ms at the model's rate.

Whichever device they come from, and however often that changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.resample import Resampler

from .devices import BLOCK_MS
from .streams import Capture

Pcm = NDArray[np.float32]


class BlockReader:
    """Takes a ring at one rate apart into blocks of 10 ms at another."""

    def __init__(self, ring: AudioRing, ring_hz: int, rate_hz: int) -> None:
        self.block = rate_hz * BLOCK_MS // 1000
        self._ring, self._resampler = ring, Resampler(ring_hz, rate_hz)
        self._waiting: Pcm = np.zeros(0, np.float32)

    def pull(self) -> None:
        """Take over what is in the ring."""
        self._waiting = np.concatenate([self._waiting, self._resampler.push(self._read())])

    def skip(self) -> None:
        """Begin with what is written from now on."""
        self._read()

    def __len__(self) -> int:
        """Whole blocks waiting."""
        return len(self._waiting) // self.block

    def take(self) -> Pcm:
        """The oldest block; one must be waiting."""
        block, self._waiting = np.split(self._waiting, [self.block])
        assert len(block) == self.block
        return block

    def drop(self, blocks: int) -> None:
        """Forget the oldest ones."""
        self._waiting = self._waiting[blocks * self.block :]

    def _read(self) -> Pcm:
        fresh = np.empty(len(self._ring), np.float32)
        self._ring.read(fresh)
        return fresh


class Microphone:
    """Reads the capture of the moment; silent while there is none."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._capture: Capture | None = None
        self._reader: BlockReader | None = None
        self._overruns = 0  # of captures that are gone

    def connect(self, capture: Capture | None) -> None:
        """Read from here from now on."""
        if self._capture is not None:
            self._overruns += self._capture.overruns
        self._capture, self._reader = capture, None
        if capture is not None:
            self._reader = BlockReader(capture.ring, capture.port.rate_hz, self.rate_hz)

    @property
    def overruns(self) -> int:
        """Times that samples were lost."""
        return self._overruns + (self._capture.overruns if self._capture else 0)

    def blocks(self) -> list[Pcm]:
        """What was heard since the last call, in blocks of 10 ms, float32 in ±1."""
        if (reader := self._reader) is None:
            return []
        reader.pull()
        return [np.clip(reader.take(), -1, 1) for _ in range(len(reader))]
