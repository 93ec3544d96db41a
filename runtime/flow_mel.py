"""The mel of a voice prompt: 24 kHz, 20 ms frames, natural log, in numpy (contract E.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .mel import slaney_filters

Pcm = NDArray[np.float32]
Mel = NDArray[np.float32]

RATE_HZ = 24_000
WINDOW_SAMPLES = 1920
HOP_SAMPLES = 480
HIGHEST_HZ = 8000.0
_EDGE = (WINDOW_SAMPLES - HOP_SAMPLES) // 2  # reflected on both sides
_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)


def flow_mel(pcm: Pcm, mel_bins: int) -> Mel:
    """Log magnitude mel: pcm [S] in ±1 at 24 kHz, S > 720 -> [M, S // 480]."""
    assert len(pcm) > _EDGE, "too short to be reflected"
    padded = np.pad(pcm, (_EDGE, _EDGE), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * _HANN)
    magnitude = np.sqrt(np.square(spectrum.real) + np.square(spectrum.imag) + 1e-9)  # [F, 961]
    mel = slaney_filters(RATE_HZ, WINDOW_SAMPLES, mel_bins, HIGHEST_HZ) @ magnitude.T
    return np.log(np.maximum(mel, 1e-5)).astype(np.float32)
