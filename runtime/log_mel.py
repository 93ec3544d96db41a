"""Whisper log-mel at 16 kHz in numpy, offline and streaming (contract D.3, D.4).

Streaming equals offline for any chunking. The one thing that cannot stream is Whisper's floor, the
loudest bin of the *whole* segment minus 8; the rule used instead is the loudest bin *so far*, never
taken to be below an assumed maximum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mel import slaney_filters

Pcm = NDArray[np.float32]
Mel = NDArray[np.float32]

RATE_HZ = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
CODE_SAMPLES = 1280  # one code, 80 ms
DYNAMIC_RANGE = 8.0  # log10 units kept below the maximum
_LEFT = WINDOW_SAMPLES // 2  # frame f is centred on sample 160 f
_RIGHT = WINDOW_SAMPLES - _LEFT - HOP_SAMPLES  # samples the last frame reads past the end
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(
    np.float32
)


def _log_power(padded: Pcm, mel_bins: int) -> Mel:
    """log10 mel power [M, F] of every whole window of padded [S], hop 160; floor at 1e-10."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * _HANN)
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # [F, 201]
    filters = slaney_filters(RATE_HZ, WINDOW_SAMPLES, mel_bins, RATE_HZ / 2)
    return np.log10(np.maximum(filters @ power.T.astype(np.float32), np.float32(1e-10)))


def _normalise(log: Mel, maximum: Mel | np.float32) -> Mel:
    return (np.maximum(log, maximum - np.float32(DYNAMIC_RANGE)) + np.float32(4)) / np.float32(4)


def log_mel(pcm: Pcm, mel_bins: int, assumed_max: float | None = None) -> Mel:
    """Log-mel of one segment: pcm [S] float32 in ±1 -> [M, 8 ceil(S/1280)].

    assumed_max   None for the official rule (maximum of the segment), else the streaming rule of
                  `StreamingLogMel`; comparing the two measures what streaming costs
    """
    if assumed_max is not None:
        stream = StreamingLogMel(mel_bins, assumed_max)
        return np.concatenate([stream.push(pcm), stream.finish()], axis=1)
    if not len(pcm):
        return np.zeros((mel_bins, 0), np.float32)
    whole = np.pad(pcm, (0, -len(pcm) % CODE_SAMPLES))
    log = _log_power(np.pad(whole, (_LEFT, _RIGHT), mode="reflect"), mel_bins)
    return _normalise(log, log.max())


class StreamingLogMel:
    """One segment, pushed in blocks of any size; a frame comes out once nothing can change it.

    Frame f needs samples up to 160 f + 199, the first two frames the first 201 (left reflection).
    The floor under frame f is max(assumed_max, loudest bin of frames 0 … f) - 8, in log10 units.
    State is replaced, never written into: `copy.copy` of this object is a snapshot.
    """

    def __init__(self, mel_bins: int, assumed_max: float) -> None:
        self.mel_bins = mel_bins
        self.maximum = np.float32(assumed_max)
        self.samples = 0  # pushed so far
        self._padded = False  # True once the reflected samples stand before the first one
        self._pending: Pcm = np.zeros(0, np.float32)  # from the start of the next frame on

    def push(self, pcm: Pcm) -> Mel:
        """pcm [S] -> the frames [M, F] that have become final; F may be 0."""
        self.samples += len(pcm)
        self._pending = np.concatenate([self._pending, pcm.astype(np.float32, copy=False)])
        if not self._padded:
            if len(self._pending) <= _LEFT:
                return np.zeros((self.mel_bins, 0), np.float32)
            self._pending = np.concatenate([self._pending[_LEFT:0:-1], self._pending])
            self._padded = True
        return self._frames()

    def finish(self) -> Mel:
        """The remaining frames: zeros up to a whole code, then reflection at the right end."""
        frames = self.push(np.zeros(-self.samples % CODE_SAMPLES, np.float32))
        if not self.samples:
            return frames
        mirror = self._pending[-2 : -2 - _RIGHT : -1]
        self._pending = np.concatenate([self._pending, mirror])
        return np.concatenate([frames, self._frames()], axis=1)

    def _frames(self) -> Mel:
        count = (len(self._pending) - WINDOW_SAMPLES) // HOP_SAMPLES + 1
        if count <= 0:
            return np.zeros((self.mel_bins, 0), np.float32)
        log = _log_power(self._pending, self.mel_bins)
        self._pending = self._pending[count * HOP_SAMPLES :].copy()
        seen = np.maximum(np.maximum.accumulate(log.max(axis=0)), self.maximum)
        self.maximum = seen[-1]
        return _normalise(log, seen)
