"""Kaldi filter-bank features at 16 kHz in numpy: what the speaker encoder hears (contract G).

Kaldi's `compute-fbank-feats` with its defaults, but 80 bins, no dither and samples in ±1: whole
frames only (snip edges), per frame DC removal, pre-emphasis and the Povey window, power spectrum of
512 points, triangles on the mel scale from 20 Hz to 8 kHz, natural log floored at float32 epsilon.
Computed in float64, so nearer to the formula than the float32 reference is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.float32]
Features = NDArray[np.float32]
Floats = NDArray[np.float64]

RATE_HZ = 16_000
WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
BINS = 80
_FFT_SAMPLES = 512
_LOWEST_HZ = 20.0
_PRE_EMPHASIS = 0.97
_FLOOR = float(np.finfo(np.float32).eps)


def _mel(hz: Floats) -> Floats:
    """The mel scale of HTK, in natural logarithms."""
    return 1127.0 * np.log1p(hz / 700.0)


@cache
def _filters(bins: int) -> Floats:
    """Triangles [bins, 257], linear in mel, peak 1; the Nyquist frequency belongs to none."""
    low, high = _mel(np.array([_LOWEST_HZ, RATE_HZ / 2]))
    edges = low + (high - low) / (bins + 1) * np.arange(bins + 2)
    mel = _mel(np.arange(_FFT_SAMPLES // 2) * RATE_HZ / _FFT_SAMPLES)
    left, centre, right = (edges[i : i + bins, None] for i in range(3))
    rise, fall = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return np.pad(np.maximum(0.0, np.minimum(rise, fall)), ((0, 0), (0, 1)))


@cache
def _povey_window() -> Floats:
    """A Hann window with both ends zero, to the power 0.85."""
    phase = 2 * np.pi * np.arange(WINDOW_SAMPLES) / (WINDOW_SAMPLES - 1)
    window: Floats = (0.5 - 0.5 * np.cos(phase)) ** 0.85
    return window


def fbank(pcm: Pcm, bins: int = BINS) -> Features:
    """Log mel energies: pcm [S] in ±1 at 16 kHz -> [T, bins], T = 1 + (S - 400) // 160.

    T is 0 for less than one window.
    """
    if len(pcm) < WINDOW_SAMPLES:
        return np.zeros((0, bins), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(pcm, WINDOW_SAMPLES)[::HOP_SAMPLES]
    frames = windows.astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)  # the first sample repeats
    spectrum = np.fft.rfft((frames - _PRE_EMPHASIS * before) * _povey_window(), _FFT_SAMPLES)
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # [T, 257]
    energies = power @ _filters(bins).T
    return np.log(np.maximum(energies, _FLOOR)).astype(np.float32)


def speaker_features(pcm: Pcm) -> Features:
    """Fbank without its mean over time, [T, 80]: loudness and the room's colour are gone."""
    features = fbank(pcm)
    features -= features.mean(axis=0)
    return features
