"""Fundamental frequency by YIN (de Cheveigné & Kawahara 2002), one value per 20 ms mel frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_HZ, HIGH_HZ = 70.0, 420.0
THRESHOLD = 0.15


def yin(pcm: NDArray[np.float32], rate_hz: int = 24000, hop: int = 480) -> NDArray[np.float32]:
    """F0 [S / hop] in Hz, 0 where unvoiced. Source: YIN, steps 1 to 5 (eq. 6, 8)."""
    longest, shortest = int(rate_hz / LOW_HZ), int(rate_hz / HIGH_HZ)
    width = 2 * longest
    frames = len(pcm) // hop
    padded = np.pad(pcm.astype(np.float64), (width // 2, width + hop))
    at = np.arange(frames)[:, None] * hop + np.arange(width)[None, :]
    windows = padded[at]  # [T, 2L]
    head = windows[:, :longest]
    size = 1 << int(np.ceil(np.log2(width + longest)))
    spectrum = np.fft.rfft(windows, size) * np.conj(np.fft.rfft(head, size))
    correlation = np.fft.irfft(spectrum, size)[:, :longest]
    energy = np.cumsum(np.pad(windows**2, ((0, 0), (1, 0))), axis=1)
    lagged = energy[:, longest : 2 * longest] - energy[:, :longest]
    difference = np.maximum(lagged[:, :1] + lagged - 2 * correlation, 0.0)
    difference[:, 0] = 0.0
    lags = np.arange(longest)
    mean = np.cumsum(difference, axis=1) / np.maximum(lags, 1)
    normal = np.where(lags == 0, 1.0, difference / np.maximum(mean, 1e-12))
    searched = normal[:, shortest:]
    dip = (searched[:, :-2] > searched[:, 1:-1]) & (searched[:, 1:-1] <= searched[:, 2:])
    good = dip & (searched[:, 1:-1] < THRESHOLD)
    voiced = good.any(axis=1) & (lagged[:, 0] / longest > 1e-6)
    best = good.argmax(axis=1) + 1 + shortest
    row = np.arange(frames)
    a, b, c = (
        normal[row, best - 1],
        normal[row, best],
        normal[row, np.minimum(best + 1, longest - 1)],
    )
    bend = np.where(np.abs(a - 2 * b + c) > 1e-12, (a - c) / (2 * (a - 2 * b + c) + 1e-12), 0.0)
    lag = best + np.clip(bend, -1, 1)
    return np.where(voiced, rate_hz / lag, 0.0).astype(np.float32)
