"""fp8 E4M3: one byte a value, rounded to nearest even, never an infinity.

bit       7   6 5 4 3    2 1 0
        sign exponent  mantissa      value = ± 1.mmm · 2^(exponent - 7)
                                     exponent 0: ± 0.mmm · 2^-6, down to 2^-9
        0 1111 110 = 448, the largest;   S 1111 111 = not a number
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX = 448.0
_MAX_BITS = np.uint32(0x43E00000)  # 448 as float32
_INFINITY_BITS = np.uint32(0x7F800000)
_NORMAL_BITS = np.uint32(0x3C800000)  # 2^-6, the smallest value with a hidden one
_REBIAS = np.uint32((127 - 7) << 3)  # float32's exponent bias less E4M3's, in E4M3's place
_STEP_MAGIC = np.float32(2**14)  # float32 numbers near it are 2^-9 apart
_NAN = np.uint8(0x7F)


def encode(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round to the nearest E4M3 value, ties to even: the bit patterns, in the same shape.

    What is beyond ±448, infinities too, becomes ±448; only not-a-number stays one. The same bits
    as QuantizeLinear with saturate = 1 (ONNX), and as ml_dtypes for values clipped first.
    """
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    magnitude = raw & np.uint32(0x7FFFFFFF)
    sign = (raw >> np.uint32(24)).astype(np.uint8) & np.uint8(0x80)
    undefined = magnitude > _INFINITY_BITS
    np.minimum(magnitude, _MAX_BITS, out=magnitude)
    # below 2^-6 the codes are equally spaced: let a float addition do the rounding
    small = (magnitude.view(np.float32) + _STEP_MAGIC).view(np.uint32) - _STEP_MAGIC.view(np.uint32)
    subnormal = magnitude < _NORMAL_BITS
    # above, drop 20 of float32's 23 mantissa bits; a carry moves into the exponent by itself
    magnitude += np.uint32(0x7FFFF) + ((magnitude >> np.uint32(20)) & np.uint32(1))
    magnitude >>= np.uint32(20)
    magnitude -= _REBIAS
    np.copyto(magnitude, small, where=subnormal)
    np.copyto(magnitude, _NAN, where=undefined)
    sign |= magnitude.astype(np.uint8)
    return sign


def decode(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Values of E4M3 bit patterns, exact, in the same shape."""
    return np.take(_VALUES, bits)


def _all_values() -> NDArray[np.float32]:
    """The value of each of the 256 patterns."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    hidden = (exponent > 0) * 8
    magnitude: NDArray[np.float32] = np.ldexp(
        (hidden + mantissa).astype(np.float32), np.maximum(exponent, 1) - 10
    )
    magnitude[(code & 0x7F) == _NAN] = np.nan
    negative = (code & 0x80).astype(bool)
    np.negative(magnitude, out=magnitude, where=negative)
    return magnitude


_VALUES = _all_values()
