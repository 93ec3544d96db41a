"""Round to nearest with searched scales: less error than the largest magnitude gives.

Plain rounding makes the largest weight of a block the largest code: all others pay for it. The
search tries smaller scales. For each it rounds, then fits the scale to the codes by least squares;
it keeps the scale that leaves the least squared error, Σ importance · (w - scale · code)².

A scale may be negative. 4 bits have one more code below zero than above, and the sign decides which
side of the block gets it: all sixteen codes are used. Relative error of gaussian weights at 4 bits,
blocks of 128: 0.118 plain, 0.101 searched, 0.097 with negative scales.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import float8
from .blocks import Codes, Quantized
from .schemes import QuantError, Scheme

Floats = NDArray[np.float32]

_RATIOS = tuple(np.linspace(1, 0.5, 11).tolist())  # of the plain scale; 1 comes first and wins ties
_TINY = np.finfo(np.float32).tiny
_VALUES = 1 << 17  # searched at a time: what a second-level cache holds several times


def search(
    weight: Floats,
    scheme: Scheme,
    *,
    importance: ArrayLike | None = None,
    negative_scales: bool = True,
) -> Quantized:
    """Round a matrix [O, I] to nearest, with the scales of least squared error.

    importance [I]: how much an error in each input counts, such as the mean square of the input.
    negative_scales: ONNX Runtime takes them, as its own quantizer makes them; TensorRT does not.
    No block is further off than `blocks.quantize` leaves it. Raises QuantError as that does.
    """
    outputs, inputs = weight.shape
    scales = search_scales(weight, scheme, importance=importance, negative_scales=negative_scales)
    codes = empty_codes((outputs, inputs), scheme)
    for rows in row_blocks(outputs, inputs):
        grouped = weight[rows].astype(np.float32, copy=False).reshape(-1, *scheme.groups(inputs))
        levels = round_levels(grouped / scales[rows, :, None], scheme)
        codes[rows] = to_codes(levels, scheme).reshape(-1, inputs)
    return Quantized(codes, scales)


def search_scales(
    weight: Floats,
    scheme: Scheme,
    *,
    importance: ArrayLike | None = None,
    negative_scales: bool = True,
) -> Floats:
    """The scales [O, I/g] of `search`. Arguments and errors as there."""
    outputs, inputs = weight.shape
    groups = scheme.groups(inputs)
    weights = None if importance is None else _normalised(importance, groups)
    scales = np.empty((outputs, groups[0]), np.float32)
    for rows in row_blocks(outputs, inputs):
        grouped = weight[rows].astype(np.float32, copy=False).reshape(-1, *groups)
        peak = np.maximum(grouped.max(axis=2), -grouped.min(axis=2))
        if not np.isfinite(peak).all():
            raise QuantError(f"a weight in rows {rows.start} to {rows.stop} is not finite")
        # the largest magnitude becomes the largest code
        start = np.maximum(np.where(peak > 0, peak / np.float32(scheme.limit), 1), _TINY)
        if negative_scales and scheme.lowest < -scheme.limit:
            start = np.where(grouped.max(axis=2) == peak, -start, start)
        scales[rows] = _least_error(grouped, start, weights, scheme)
    return scales


def round_levels(scaled: Floats, scheme: Scheme) -> Floats:
    """Weights over scales, of any shape -> the nearest values a code stands for. Works in place."""
    if scheme.floating:
        return float8.decode(float8.encode(scaled))
    np.rint(scaled, out=scaled)
    return np.clip(scaled, scheme.lowest, scheme.limit, out=scaled)


def to_codes(levels: Floats, scheme: Scheme) -> Codes:
    """What `round_levels` gives -> codes as they are stored: int8, or E4M3 bit patterns."""
    return float8.encode(levels) if scheme.floating else levels.astype(np.int8)


def empty_codes(shape: tuple[int, ...], scheme: Scheme) -> Codes:
    """Room for codes, not initialised."""
    return np.empty(shape, np.uint8) if scheme.floating else np.empty(shape, np.int8)


def row_blocks(outputs: int, inputs: int) -> Iterator[slice]:
    """Cut a matrix [O, I] into runs of rows that a cache holds."""
    step = max(1, _VALUES // inputs)
    return (slice(i, min(i + step, outputs)) for i in range(0, outputs, step))


def _normalised(importance: ArrayLike, groups: tuple[int, int]) -> Floats:
    """Importance [I] -> [B, g], the largest of each block 1; a block of zeros counts evenly."""
    given = np.asarray(importance, np.float64)
    blocks, size = groups
    if given.shape != (blocks * size,):
        raise QuantError(f"importance {given.shape} for {blocks * size} inputs; give one each")
    if not (np.isfinite(given).all() and (given >= 0).all()):
        raise QuantError("importance must be finite and not negative")
    grouped = given.reshape(groups)
    largest = grouped.max(axis=1, keepdims=True)
    even = np.where(largest > 0, grouped / np.where(largest > 0, largest, 1), 1)
    return even.astype(np.float32)


def _least_error(grouped: Floats, start: Floats, weights: Floats | None, scheme: Scheme) -> Floats:
    """Try `start` [R, B] times each ratio on [R, B, g]; returns the best fitted scales [R, B].

    With codes c, the best scale is Σhwc / Σhc² and lowers Σh(w - scale·c)² by (Σhwc)² / Σhc².
    """
    best = np.full(start.shape, -1, np.float32)
    scales = start.copy()
    levels = np.empty_like(grouped)
    unit = grouped / start[:, :, None]  # at most the limit: no overflow in what follows
    for ratio in _RATIOS:
        np.multiply(unit, np.float32(1 / ratio), out=levels)
        levels = round_levels(levels, scheme)
        weighed = levels if weights is None else levels * weights
        fit = np.einsum("rbg,rbg->rb", unit, weighed)
        power = np.einsum("rbg,rbg->rb", levels, weighed)
        gain = np.divide(fit * fit, power, out=np.zeros_like(fit), where=power > 0)
        better = gain > best
        np.copyto(best, gain, where=better)
        fitted = np.divide(fit, power, out=np.full_like(fit, ratio), where=power > 0)
        np.copyto(scales, fitted * start, where=better)
    return scales
