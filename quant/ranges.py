"""Static int8 ranges of activations, found by watching them: the A8 of W8A8.

    |x| -> histogram of 2048 equal bins on [0, 2^k]      k grows as needed, bins then merge in pairs
        -> scale: the code 127 stands for the clip of least squared error, never above the largest

Symmetric, so that zero stays zero and QuantizeLinear needs no zero point. The same data give the
same scale in whatever pieces they come, and ranges of several processes join.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .schemes import QuantError

_BINS = 2048
_LIMIT = 127
_CLIPS = 128  # candidates, evenly spaced between 0 and the largest value


class ActivationRange:
    """Magnitudes seen of one activation tensor."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._exponent = -126  # the bins end at 2^exponent
        self.peak = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Account for values of any shape. Raises QuantError unless all are finite."""
        if not values.size:
            return
        magnitude = np.abs(values).ravel().astype(np.float64)
        peak = float(magnitude.max())
        if not np.isfinite(peak):
            raise QuantError("an activation is not finite; calibrate in float32")
        self._grow(peak)
        bins = (magnitude * (_BINS / 2.0**self._exponent)).astype(np.int64)
        self._counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def join(self, other: ActivationRange) -> None:
        """Account for what another one saw, which may be changed to wider bins."""
        self._grow(other.peak)
        other._grow(self.peak)
        self._counts += other._counts

    def scale(self, *, clip: bool = True) -> float:
        """What one code stands for. clip: trade the largest values for a finer grid; else keep all.

        An activation that was always zero, or never seen, has scale 1.
        """
        if not self.peak:
            return 1.0
        if not clip:
            return self.peak / _LIMIT
        centres = np.arange(0.5, _BINS, dtype=np.float64) * (2.0**self._exponent / _BINS)
        centres[0] = 0  # mostly true zeros, which every scale keeps
        scales = self.peak * np.arange(_CLIPS, 0, -1) / (_CLIPS * _LIMIT)  # the widest wins ties
        errors = [_error(centres, self._counts, scale) for scale in scales.tolist()]
        return float(scales[int(np.argmin(errors))])

    def _grow(self, peak: float) -> None:
        """Widen the bins until they hold `peak`: 2^exponent is the least power of two above it."""
        self.peak = max(self.peak, peak)
        needed = max(int(np.frexp(peak)[1]), self._exponent) if peak else self._exponent
        while self._exponent < needed:
            if not self._counts.any():
                self._exponent = needed
                return
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts[: _BINS // 2], self._counts[_BINS // 2 :] = merged, 0
            self._exponent += 1


def _error(centres: NDArray[np.float64], counts: NDArray[np.int64], scale: float) -> float:
    """Squared error of rounding and clipping values counted in bins, inside the bins too."""
    rounded = np.minimum(np.rint(centres / scale), _LIMIT) * scale
    return float(counts @ np.square(centres - rounded))
