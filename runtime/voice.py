"""The voice: speech codes to samples at 24 kHz, 1920 per code (contract E, F)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .flow import Codes, FlowDecoder
from .vocoder import Vocoder

Pcm = NDArray[np.float32]


class SpeechDecoder:
    """One reply at a time. After `finish` or `reset` the next one may begin.

    `push` and `finish` do all the work there is. Who wants to stay interruptible calls `feed` and
    `end` instead, and `step` (one engine call) while `ready`.
    """

    def __init__(self, flow: FlowDecoder, vocoder: Vocoder) -> None:
        self.flow, self.vocoder = flow, vocoder
        self._mel = np.zeros((flow.sizes.mel_bins, 0), np.float32)  # made, not yet vocoded
        self._ending = False

    @property
    def nbytes(self) -> int:
        """Size of the state that grows with the reply."""
        return self.flow.nbytes

    @property
    def ready(self) -> bool:
        """Whether `step` has work."""
        return self._mel.shape[1] > 0 or self.flow.ready or self._ending

    def push(self, codes: Codes) -> Pcm:
        """Codes [n] of the reply -> the samples [S] that have become final."""
        self.feed(codes)
        return self._drain()

    def finish(self) -> Pcm:
        """The samples still owed: 1920 per code in all. Raises ConfigError without any code."""
        self.end()
        return self._drain()

    def feed(self, codes: Codes) -> None:
        """Accept codes [n] of the reply; nothing is computed. Errors as `FlowDecoder.feed`."""
        self.flow.feed(codes)

    def end(self) -> None:
        """No more codes will come. Raises ConfigError if there were none."""
        self.flow.end()
        self._ending = True

    def reset(self) -> None:
        """Drop the reply wherever it is; at the cost of nothing."""
        self.flow.reset()
        self.vocoder.reset()
        self._mel, self._ending = self._mel[:, :0], False

    def step(self) -> Pcm:
        """One engine call. Returns samples [S], most often none; the last call resets."""
        assert self.ready, "no work"
        if self._mel.shape[1]:
            pcm = self.vocoder.push(self._mel)
            self._mel = self._mel[:, :0]
            return pcm
        if self.flow.ready:
            self._mel = self.flow.step()
            return np.zeros(0, np.float32)
        pcm = self.vocoder.finish()
        self.reset()
        return pcm

    def _drain(self) -> Pcm:
        pcm = [np.zeros(0, np.float32)]
        while self.ready:
            pcm.append(self.step())
        return np.concatenate(pcm)
