"""Sample rate conversion: Hann-windowed sinc, 6 zero crossings each side, cut-off at 0.99.

That filter is part of the model's definition: others give other codes (contract D.3 step 1, J.19).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

Pcm = NDArray[np.float32]

ZERO_CROSSINGS = 6
ROLLOFF = 0.99
MAX_TAPS = (
    1 << 22
)  # 16 MiB of coefficients; two rates without a common divisor would need gigabytes


def _reduced(rate_in_hz: int, rate_out_hz: int) -> tuple[int, int]:
    if rate_in_hz <= 0 or rate_out_hz <= 0:
        raise ConfigError(f"cannot resample from {rate_in_hz} Hz to {rate_out_hz} Hz")
    divisor = gcd(rate_in_hz, rate_out_hz)
    return rate_in_hz // divisor, rate_out_hz // divisor


@lru_cache(maxsize=8)
def _filters(period_in: int, period_out: int) -> tuple[int, NDArray[np.float32]]:
    """Reach in samples and coefficients [period_out, 2 reach + period_in], a row per phase."""
    cutoff = ROLLOFF * min(period_in, period_out)
    reach = ceil(ZERO_CROSSINGS * period_in / cutoff)
    if period_out * (2 * reach + period_in) > MAX_TAPS:
        raise ConfigError(
            f"cannot resample by {period_out}/{period_in}: the filter would be too large; "
            "use rates with a common divisor, such as 16000, 22050, 24000, 44100 or 48000 Hz"
        )
    tap = np.arange(-reach, reach + period_in) / period_in
    phase = np.arange(period_out)[:, None] / period_out
    t = np.clip((tap - phase) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(np.pi * t / (2 * ZERO_CROSSINGS)) ** 2
    coefficients = np.sinc(t) * window * (cutoff / period_in)
    return reach, coefficients.astype(np.float32)


class Resampler:
    """Streaming conversion of one channel; state is the tail of the input the next output needs.

    The output lags by the filter's reach, 6.1 samples of the lower rate, and by one period of the
    reduced ratio, 10 ms between 44.1 and 16 kHz.
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int) -> None:
        self._in, self._out = _reduced(rate_in_hz, rate_out_hz)
        self._reach, self._coefficients = _filters(self._in, self._out)
        self.reset()

    def reset(self) -> None:
        """Forget everything heard; the next push starts a new signal."""
        self._pending: Pcm = np.zeros(self._reach, np.float32)
        self._heard = 0
        self._made = 0

    def push(self, pcm: Pcm) -> Pcm:
        """pcm [S] -> the output samples that have become final, possibly none."""
        self._heard += len(pcm)
        if self._in == self._out:
            self._made += len(pcm)
            return pcm.astype(np.float32)
        self._pending = np.concatenate([self._pending, pcm.astype(np.float32, copy=False)])
        span = 2 * self._reach + self._in
        count = (len(self._pending) - span) // self._in + 1
        if count <= 0:
            return np.zeros(0, np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, span)[:: self._in]
        made = (windows[:count] @ self._coefficients.T).reshape(-1)  # [count, out] -> [count * out]
        self._pending = self._pending[count * self._in :].copy()
        self._made += len(made)
        return made

    def finish(self) -> Pcm:
        """The rest, up to ceil(S out/in) samples in all; then ready for a new signal."""
        rest = ceil(self._heard * self._out / self._in) - self._made
        made = self.push(np.zeros(self._reach + self._in, np.float32))[:rest]
        self.reset()
        return made


def resample(pcm: Pcm, rate_in_hz: int, rate_out_hz: int) -> Pcm:
    """pcm [S] at rate_in_hz -> [ceil(S rate_out/rate_in)] at rate_out_hz."""
    resampler = Resampler(rate_in_hz, rate_out_hz)
    return np.concatenate([resampler.push(pcm), resampler.finish()])
