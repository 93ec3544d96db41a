"""Symmetric rounding of matrices to codes of 8 or 4 bits, and the 4-bit packing ONNX uses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import float8
from .schemes import QuantError, Scheme

Codes = NDArray[np.int8 | np.uint8]  # int8 holds integers, uint8 the bits of fp8 (see `float8`)

_VALUES = 1 << 18  # quantized at a time: what a second-level cache holds
_TINY = np.finfo(np.float32).tiny


class Quantized(NamedTuple):
    """Codes and scales of one matrix: weight ≈ scale · code."""

    codes: Codes  # [O, I], lowest <= code <= limit
    scales: NDArray[np.float32]  # [O, I/g], not zero; negative only where `rounding` may choose so


def quantize(weight: NDArray[np.float32], scheme: Scheme) -> Quantized:
    """Round a matrix [O, I] to nearest, each block scaled by its largest magnitude.

    The error of every weight is at most half its scale; for fp8, at most 1/16 of the weight or
    2^-10 of the scale. Raises QuantError unless the block divides I and every weight is finite.
    """
    outputs, inputs = weight.shape
    blocks, size = scheme.groups(inputs)
    codes: Codes = np.empty((outputs, inputs), np.uint8 if scheme.floating else np.int8)
    scales = np.empty((outputs, blocks), np.float32)
    step = max(1, _VALUES // inputs)
    scratch = np.empty((min(step, outputs), blocks, size), np.float32)
    for start in range(0, outputs, step):
        rows = slice(start, min(start + step, outputs))
        grouped = weight[rows].astype(np.float32, copy=False).reshape(-1, *scratch.shape[1:])
        work = scratch[: len(grouped)]
        peak = np.abs(grouped, out=work).max(axis=2)
        if not np.isfinite(peak).all():
            raise QuantError(f"a weight in rows {rows.start} to {rows.stop} is not finite")
        scale = np.maximum(np.where(peak > 0, peak / scheme.limit, 1), _TINY)
        np.divide(grouped, scale[:, :, None], out=work)  # at most the limit, up to rounding
        levels = float8.encode(work) if scheme.floating else np.rint(work, out=work)
        np.copyto(codes[rows], levels.reshape(-1, inputs), casting="unsafe")
        scales[rows] = scale
    return Quantized(codes, scales)


def dequantize(quantized: Quantized) -> NDArray[np.float32]:
    """Undo `quantize`, up to rounding: [O, I] float32."""
    codes, scales = quantized
    values = (
        float8.decode(codes.view(np.uint8)) if codes.dtype == np.uint8 else codes.astype(np.float32)
    )
    grouped = values.reshape(*scales.shape, -1)
    return (grouped * scales[:, :, None]).reshape(codes.shape)


def pack_int4(codes: Codes) -> NDArray[np.uint8]:
    """Codes of any shape, -8 … 7 -> bytes [ceil(n/2)]: the first of each pair in the low half."""
    flat = codes.reshape(-1).view(np.uint8) & 15
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return (flat[0::2] | flat[1::2] << 4).astype(np.uint8, copy=False)


def pack_outputs(codes: Codes) -> NDArray[np.uint8]:
    """Codes [O, I], O even, of -8 … 7 -> bytes [O/2, I], whose transpose is `pack_int4(codes.T)`.

    row 0 | a b c |  ->  | a+16d  b+16e  c+16f |   one byte: the even output in the low half
    row 1 | d e f |
    """
    pairs = codes.view(np.uint8)
    high = np.left_shift(pairs[1::2], 4)
    return np.bitwise_or(high, np.bitwise_and(pairs[0::2], 15), out=high)


def unpack_int4(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Undo `pack_int4`."""
    flat = np.empty(2 * packed.size, np.uint8)
    flat[0::2], flat[1::2] = packed & 15, packed >> 4
    signed = (flat.view(np.int8) ^ 8) - 8
    return signed[: int(np.prod(shape))].reshape(shape)
