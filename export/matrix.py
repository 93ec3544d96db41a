"""Matrices on their way into an engine: read by rows, encoded, transposed, never whole in memory.

A checkpoint holds [O, I], an engine wants [I, O]. Blocks of rows are read and encoded by any number
of threads, each of which fills its columns of a strip [I, some O]; a finished strip is written.

      O rows of I          strip            NAME.data [I, O]
    | ======== block |    | | |            | strip 0 | strip 1 | ...
    | ======== block | -> | | |  [I, n] -> |         |         |
    | ...            |    | | |            |         |         |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from antiphon.quant.blocks import Quantized, pack_outputs
from antiphon.quant.recipe import METHODS
from antiphon.quant.schemes import QuantError, Scheme

Floats = NDArray[np.float32]
Encode = Callable[[int, Floats], NDArray[Any]]
Method = Callable[[Floats, Scheme], Quantized]  # rows [n, I] -> their codes and scales

BLOCK_VALUES = 1 << 20  # that one thread holds at a time: 4 MB as float32
STRIP_BYTES = 64 << 20


class Rows(Protocol):
    """A matrix that is read some rows at a time, by any number of threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """[O, I]."""
        ...

    def read(self, start: int, stop: int) -> Floats:
        """Rows start to stop [stop - start, I]."""
        ...


Matrix = Floats | Rows


@dataclass(frozen=True, slots=True)
class _ArrayRows:
    """A matrix that is in memory already."""

    array: Floats

    @property
    def shape(self) -> tuple[int, int]:
        outputs, inputs = self.array.shape
        return outputs, inputs

    def read(self, start: int, stop: int) -> Floats:
        return self.array[start:stop]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A matrix that brings its own rounding, which fits the inputs it was seen to multiply."""

    rows: Rows
    method: Method

    @property
    def shape(self) -> tuple[int, int]:
        """[O, I]."""
        return self.rows.shape

    def read(self, start: int, stop: int) -> Floats:
        """Rows start to stop [stop - start, I]."""
        return self.rows.read(start, stop)


def as_rows(matrix: Matrix) -> Rows:
    """The matrix as something to be read by rows."""
    return _ArrayRows(matrix) if isinstance(matrix, np.ndarray) else matrix


def whole(matrix: Matrix) -> Floats:
    """The matrix in memory."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.read(0, matrix.shape[0])


@dataclass(frozen=True, slots=True)
class Transposed:
    """The strips of one matrix as it is stored: `cells` [I, O / per_cell]."""

    rows: Rows
    encode: Encode  # first row, rows [n, I] -> cells [n / per_cell, I]
    cell: np.dtype[Any]
    per_cell: int = 1  # outputs that share a cell
    jobs: int = 1

    @property
    def nbytes(self) -> int:
        """Of all cells."""
        return self.rows.shape[1] * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Of the cells of one input."""
        return self.rows.shape[0] // self.per_cell * self.cell.itemsize

    def strips(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Byte offset within a row, and the strip [I, n] that begins there."""
        outputs, inputs = self.rows.shape
        block = self.per_cell * max(1, BLOCK_VALUES // (inputs * self.per_cell))
        strip = outputs
        if self.nbytes > STRIP_BYTES:
            strip = block * max(
                1, STRIP_BYTES * self.per_cell // (block * inputs * self.cell.itemsize)
            )
        for first in range(0, outputs, strip):
            last = min(first + strip, outputs)
            at = first // self.per_cell * self.cell.itemsize
            yield at, self._strip(first, last, block)

    def _strip(self, first: int, last: int, block: int) -> NDArray[Any]:
        n = self.per_cell
        cells = np.empty((self.rows.shape[1], (last - first) // n), self.cell)

        def fill(start: int) -> None:
            stop = min(start + block, last)
            encoded = self.encode(start, self.rows.read(start, stop))
            cells[:, (start - first) // n : (stop - first) // n] = encoded.T

        each(fill, range(first, last, block), self.jobs)
        return cells


def each(work: Callable[[int], None], starts: range, jobs: int) -> None:
    """Call `work` for every start, `jobs` at a time; the first error ends it."""
    if jobs == 1 or len(starts) == 1:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(work, starts):
            pass


def coded(
    rows: Rows, scheme: Scheme, method: str = "rtn", jobs: int = 1
) -> tuple[Transposed, Floats]:
    """Codes of a quantized matrix, and its scales [I/g, O], which are filled along with them.

    `method`, a name in METHODS, counts unless the matrix is `Fitted`.

    Two codes of four bits share a byte, the even output in its low half: the packing of ONNX.
    Raises QuantError, also while strips are read: for a weight that is not finite.
    """
    outputs, inputs = rows.shape
    scales = np.empty((scheme.blocks(inputs), outputs), np.float32)
    per_cell = 8 // scheme.bits
    if outputs % per_cell:
        raise QuantError(f"{outputs} outputs, expected an even number for {scheme.name}")

    rounded = rows.method if isinstance(rows, Fitted) else METHODS[method]

    def encode(start: int, block: Floats) -> NDArray[Any]:
        try:
            codes, found = rounded(block, scheme)
        except QuantError as error:
            raise QuantError(f"from row {start} on: {error}") from error
        scales[:, start : start + len(block)] = found.T
        return pack_outputs(codes) if per_cell == 2 else codes

    cell = np.dtype(np.uint8 if per_cell == 2 or scheme.floating else np.int8)
    return Transposed(rows, encode, cell, per_cell, jobs), scales


def floats(rows: Rows, dtype: type[np.floating[Any]], jobs: int = 1) -> Transposed:
    """The matrix as float32 or float16. Reading it raises QuantError where that is too small."""

    def encode(start: int, block: Floats) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            cells = block.astype(dtype, copy=False)
        if not np.isfinite(cells).all():
            raise QuantError(f"from row {start} on: a weight is not finite as {np.dtype(dtype)}")
        return cells

    return Transposed(rows, encode, np.dtype(dtype), jobs=jobs)


def fits_half(rows: Rows) -> bool:
    """Whether float16 holds every value exactly; reads on until one that it does not."""
    outputs, inputs = rows.shape
    block = max(1, BLOCK_VALUES // inputs)
    with np.errstate(over="ignore"):
        for start in range(0, outputs, block):
            value = rows.read(start, min(start + block, outputs))
            if not np.array_equal(value.astype(np.float16), value):
                return False
    return True
