"""How far an approximation is from the exact array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_ROWS = 1024  # of a matrix measured at a time


def sqnr_db(exact: ArrayLike, approximate: ArrayLike) -> float:
    """Signal to quantization noise ratio over all values; infinite when equal."""
    signal = np.asarray(exact, np.float64)
    noise = float(np.square(signal - np.asarray(approximate, np.float64)).sum())
    power = float(np.square(signal).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(power / noise)) if power else float("-inf")


def output_sqnr_db(exact: ArrayLike, approximate: ArrayLike, hessian: ArrayLike) -> float:
    """Signal to noise ratio of the outputs of a matrix [O, I] for inputs of moments H [I, I].

    tr(W H Wᵀ) over tr(E H Eᵀ), E = W - approximate; see `hessian.Hessian`. Infinite when equal.
    """
    h = np.asarray(hessian)
    signal = np.asarray(exact, h.dtype)
    power, noise = 0.0, 0.0
    for start in range(0, len(signal), _ROWS):
        w = signal[start : start + _ROWS]
        e = w - np.asarray(approximate)[start : start + _ROWS]
        power += float(np.multiply(w @ h, w).sum(dtype=np.float64))
        noise += float(np.multiply(e @ h, e).sum(dtype=np.float64))
    if noise <= 0:
        return float("inf")
    return 10 * float(np.log10(power / noise)) if power > 0 else float("-inf")


def cosine(exact: ArrayLike, approximate: ArrayLike) -> float:
    """Cosine of the angle between the two, flattened; 1 when both are zero."""
    a = np.asarray(exact, np.float64).ravel()
    b = np.asarray(approximate, np.float64).ravel()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    if scale == 0:
        return float(not a.any() and not b.any())
    return float(a @ b) / scale


def max_abs(exact: ArrayLike, approximate: ArrayLike) -> float:
    """Largest absolute difference; 0 for empty arrays."""
    difference = np.asarray(exact, np.float64) - np.asarray(approximate, np.float64)
    return float(np.abs(difference).max(initial=0))
