"""Keys and values as int8: a static scale per channel, found by calibration.

    row [G, S, D]  ->  code = round(row / scale[G, 1, D]), -128 … 127  ->  scale · code

Few channels of keys are many times larger than the rest, always the same ones, so that a scale per
channel pays there (Liu et al. 2024, KIVI, arXiv 2402.02750). Rotary embedding turns channel pairs
(d, d + D/2) into each other as positions go by; a pair's scale is therefore that of its length,
which turning does not change: what calibration saw at one position holds at all, and a key may be
turned to another position inside the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .schemes import QuantError

Floats = NDArray[np.float32]

_LIMIT = 127


def peaks(rows: Floats, *, rotary: bool = False) -> Floats:
    """Largest magnitudes [G, D] of rows [..., G, S, D]; join several by np.maximum.

    rotary: of keys, where channels d and d + D/2 turn into each other: the length of the pair.
    Raises QuantError unless all rows are finite.
    """
    magnitude = np.abs(rows)
    if rotary:
        half = rows.shape[-1] // 2
        length = np.hypot(rows[..., :half], rows[..., half:])
        magnitude = np.concatenate([length, length], axis=-1)
    found = magnitude.max(axis=-2).reshape(-1, *(rows.shape[-3], rows.shape[-1])).max(axis=0)
    if not np.isfinite(found).all():
        raise QuantError("a key or value is not finite")
    return np.asarray(found, np.float32)


def scales(peak: Floats) -> Floats:
    """Peaks [G, D] -> scales [G, 1, D]: 127 is the largest row seen, what is larger is clipped."""
    if not np.isfinite(peak).all() or (peak < 0).any():
        raise QuantError("peaks must be finite and not negative; calibrate again")
    step = np.where(peak > 0, peak / np.float32(_LIMIT), 1)
    return np.maximum(step, np.finfo(np.float32).tiny).astype(np.float32)[:, None, :]


def encode(rows: Floats, scales: ArrayLike) -> NDArray[np.int8]:
    """Round rows [..., G, S, D] to the nearest code, ties to even; what exceeds int8 is clipped.

    What the exported graphs do, to compare them with; also the bits that ONNX Runtime's
    GroupQueryAttention writes into an int8 cache with these scales.
    """
    scaled = rows / np.asarray(scales, np.float32)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -_LIMIT - 1, _LIMIT, out=scaled).astype(np.int8)


def decode(codes: NDArray[np.int8], scales: ArrayLike) -> Floats:
    """Undo `encode`, up to rounding: within half a scale of every row that was not clipped."""
    return codes.astype(np.float32) * np.asarray(scales, np.float32)
