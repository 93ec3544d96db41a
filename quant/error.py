"""How far an approximation is from the exact array."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def sqnr_db(exact: ArrayLike, approximate: ArrayLike) -> float:
    """Signal to quantization noise ratio over all values; infinite when equal."""
    signal = np.asarray(exact, np.float64)
    noise = float(np.square(signal - np.asarray(approximate, np.float64)).sum())
    power = float(np.square(signal).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(power / noise)) if power else float("-inf")


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
