"""Mel filter banks in numpy (librosa's `mel(norm="slaney", htk=False)`, contract D.3 and E.8)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    log = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / (np.log(6.4) / 27.0)
    return np.where(hz >= 1000.0, log, hz * 3.0 / 200.0)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    log = 1000.0 * np.exp((np.log(6.4) / 27.0) * (mel - 15.0))
    return np.where(mel >= 15.0, log, mel * 200.0 / 3.0)


@cache
def slaney_filters(rate_hz: int, n_fft: int, mel_bins: int, max_hz: float) -> NDArray[np.float32]:
    """Triangular filters [M, n_fft/2 + 1] from 0 Hz to `max_hz`, each of unit area in Hz."""
    bins = np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1)
    top = _hz_to_mel(np.array([max_hz]))[0]
    edges = _mel_to_hz(np.linspace(0.0, top, mel_bins + 2))
    ramps = edges[:, None] - bins[None, :]
    width = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-ramps[:-2] / width[:-1], ramps[2:] / width[1:]))
    filters = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    filters.setflags(write=False)
    return filters
