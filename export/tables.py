"""Embedding tables as .npy files, which the runtime maps into memory, written block by block."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from antiphon.quant.blocks import quantize
from antiphon.quant.schemes import FP16, INT8_ROW, QuantError, Scheme
from antiphon.runtime.errors import ConfigError

from .matrix import BLOCK_VALUES, Floats, Rows


def save_table(rows: Rows, scheme: Scheme, path: Path) -> list[Path]:
    """Write rows [V, H] to NAME.npy; int8 ones with their scales float32 [V] in NAME_scales.npy.

    scheme   fp32, fp16 or int8_row
    Returns the paths written. Raises ConfigError for a value that the scheme cannot hold.
    """
    count, width = rows.shape
    dtype = np.int8 if scheme.quantized else np.float16 if scheme.bits == 16 else np.float32
    scales = np.empty(count if scheme.quantized else 0, np.float32)
    step = max(1, BLOCK_VALUES // width)
    with path.open("wb") as file:
        _header(file, dtype, (count, width))
        for start in range(0, count, step):
            block = rows.read(start, min(start + step, count))
            try:
                cells, found = _cells(block, scheme)
            except QuantError as error:
                raise ConfigError(f"{path.stem}: from row {start} on: {error}") from error
            scales[start : start + len(found)] = found
            file.write(np.ascontiguousarray(cells).data)
    if not scheme.quantized:
        return [path]
    np.save(scales_path(path), scales, allow_pickle=False)
    return [path, scales_path(path)]


def scales_path(path: Path) -> Path:
    """Where the scales of the table NAME.npy are, if it has any."""
    return path.with_name(f"{path.stem}_scales.npy")


def _cells(block: Floats, scheme: Scheme) -> tuple[NDArray[Any], Floats]:
    """Rows [n, H] as stored, and their scales [n], or none."""
    if scheme.quantized:
        codes, scales = quantize(block, INT8_ROW)
        return codes, scales[:, 0]
    with np.errstate(over="ignore"):
        cells = block.astype(np.float16) if scheme is FP16 else block
    if not np.isfinite(cells).all():
        raise QuantError(f"a value is not finite as {scheme.name}")
    return cells, np.empty(0, np.float32)


def _header(file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype))}
    np.lib.format.write_array_header_1_0(file, described | {"fortran_order": False, "shape": shape})
