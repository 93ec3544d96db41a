"""Symmetric rounding of matrices to int8 or int4 codes, and the int4 packing ONNX uses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .schemes import QuantError, Scheme

_ROWS = 2048  # quantized at a time, which bounds the temporary arrays


class Quantized(NamedTuple):
    """Codes and scales of one matrix: weight ≈ scale · code."""

    codes: NDArray[np.int8]  # [O, I], -limit <= code <= limit
    scales: NDArray[np.float32]  # [O, I/g], positive


def quantize(weight: NDArray[np.float32], scheme: Scheme) -> Quantized:
    """Round a matrix [O, I] to nearest, each block scaled by its largest magnitude.

    The error of every weight is at most half its scale. Raises QuantError unless the block
    divides I and every weight is finite.
    """
    outputs, inputs = weight.shape
    blocks = scheme.blocks(inputs)
    if inputs % blocks or (scheme.block_size and inputs != blocks * scheme.block_size):
        raise QuantError(f"block {scheme.block_size} does not divide {inputs} inputs")
    codes = np.empty((outputs, inputs), np.int8)
    scales = np.empty((outputs, blocks), np.float32)
    for start in range(0, outputs, _ROWS):
        rows = slice(start, start + _ROWS)
        grouped = weight[rows].astype(np.float32, copy=False).reshape(-1, blocks, inputs // blocks)
        peak = np.abs(grouped).max(axis=2)
        if not np.isfinite(peak).all():
            raise QuantError(f"a weight in rows {start} to {start + len(peak)} is not finite")
        scale = np.where(peak > 0, peak / scheme.limit, 1).astype(np.float32)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        scaled = grouped / scale[:, :, None]
        np.rint(scaled, out=scaled)
        codes[rows] = np.clip(scaled, -scheme.limit, scheme.limit, out=scaled).reshape(-1, inputs)
        scales[rows] = scale
    return Quantized(codes, scales)


def dequantize(quantized: Quantized) -> NDArray[np.float32]:
    """Undo `quantize`, up to rounding: [O, I] float32."""
    codes, scales = quantized
    grouped = codes.reshape(*scales.shape, -1).astype(np.float32)
    return (grouped * scales[:, :, None]).reshape(codes.shape)


def pack_int4(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Codes of any shape, -8 … 7 -> bytes [ceil(n/2)]: the first of each pair in the low half."""
    flat = codes.reshape(-1).view(np.uint8) & 15
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return (flat[0::2] | flat[1::2] << 4).astype(np.uint8, copy=False)


def unpack_int4(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Undo `pack_int4`."""
    flat = np.empty(2 * packed.size, np.uint8)
    flat[0::2], flat[1::2] = packed & 15, packed >> 4
    signed = (flat.view(np.int8) ^ 8) - 8
    return signed[: int(np.prod(shape))].reshape(shape)
