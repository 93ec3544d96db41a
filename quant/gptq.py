"""GPTQ: round one input after the other, and let the inputs still to come make up for the error.

Of all roundings that decide inputs in a fixed order, it is the best for a quadratic output error
(Frantar et al. 2022, arXiv 2210.17323). It is written here in the form of Chee et al. 2023 (LDLQ,
arXiv 2307.13304, which proves the two equal): with H = U · D · Uᵀ, U unit upper triangular,

    code_k = round((w_k + Σ_{j<k} (w_j - rounded_j) · U_jk) / scale)

so that no inverse is needed, rows of the weight are independent, and a factor serves every matrix
that reads the same input (q, k, v; gate, up), in row blocks of any height, with the same result.

Order: inputs of large second moment first, while all others can still correct them. Scales are
chosen before, per block of inputs in their stored order, so that the layout is that of `blocks`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .blocks import Codes, Quantized
from .hessian import mirror
from .rounding import empty_codes, round_levels, search_scales, to_codes
from .schemes import QuantError, Scheme

Floats = NDArray[np.float32]

_PANEL = 128  # inputs rounded between two matrix products
_ROWS = 1024  # outputs rounded together: their errors in a panel fit a second-level cache
_FACTOR_PANEL = 256
_ATTEMPTS = 5  # dampings tried, each ten times the one before


class Factor(NamedTuple):
    """What rounding needs of a Hessian, made by `factorize`."""

    upper: Floats  # [I, I] U, inputs in `order`; on and below the diagonal it means nothing
    order: NDArray[np.intp]  # [I] the input rounded k-th
    importance: Floats  # [I] the Hessian's diagonal, inputs as stored
    damping: float  # what was needed, times the mean of the diagonal


def factorize(
    hessian: Floats, *, damping: float = 0.01, act_order: bool = True, overwrite: bool = False
) -> Factor:
    """Decompose H [I, I] (see `hessian.Hessian`) for `gptq`.

    damping: added to the diagonal, times its mean: caution against few rows seen. Raised tenfold,
    up to four times, where H is too near singular. act_order: round inputs of large moment first,
    else as stored. overwrite: destroy H instead of copying it (604 MB for 12,288 inputs).
    Raises QuantError unless H is square, finite, not negative on the diagonal, and decomposable.
    """
    diagonal = _checked_diagonal(hessian)
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(len(diagonal))
    work = hessian if overwrite else hessian.copy()
    _permute(work, order)
    mean = float(diagonal.mean(dtype=np.float64)) or 1.0
    for attempt in range(_ATTEMPTS):
        used = damping * 10**attempt
        np.fill_diagonal(work, diagonal[order] + np.float32(used * mean))
        try:
            _decompose(work)
        except np.linalg.LinAlgError:
            mirror(work.T)  # only what is above the diagonal was lost
            continue
        return Factor(work, order, diagonal, used)
    raise QuantError(
        f"the Hessian of {len(order)} inputs cannot be decomposed even with damping {used:g}; "
        "calibrate with more rows"
    )


def gptq(
    weight: Floats, hessian: Floats | Factor, scheme: Scheme, *, negative_scales: bool = True
) -> Quantized:
    """Round a matrix [O, I] so that the error of its outputs is small, not that of its weights.

    hessian: of its inputs [I, I], or what `factorize` made of one, to share it. An input never seen
    is rounded to nearest. negative_scales: see `rounding.search`, which chooses the scales. Any
    block of rows gives the same codes as the whole up to the order of float additions.
    Raises QuantError if the Hessian is of another size, or as `search` and `factorize` do.
    """
    factor = hessian if isinstance(hessian, Factor) else factorize(hessian)
    outputs, inputs = weight.shape
    if len(factor.order) != inputs:
        raise QuantError(f"a Hessian of {len(factor.order)} inputs for a matrix of {inputs}")
    scales = search_scales(
        weight, scheme, importance=factor.importance, negative_scales=negative_scales
    )
    codes = empty_codes((outputs, inputs), scheme)
    for start in range(0, outputs, _ROWS):
        rows = slice(start, min(start + _ROWS, outputs))
        codes[rows] = _round_rows(weight[rows], factor, scales[rows], scheme)
    return Quantized(codes, scales)


def _round_rows(weight: Floats, factor: Factor, scales: Floats, scheme: Scheme) -> Codes:
    """Codes [R, I] of some rows. Works on their transpose, so that an input's weights adjoin."""
    upper, order = factor.upper, factor.order
    inputs = len(order)
    block = order // (inputs // scales.shape[1])
    by_block = np.ascontiguousarray(scales.T)  # [B, R]
    left = np.ascontiguousarray(weight.T, np.float32)[order]  # [I, R] weights, then their errors
    codes = empty_codes(left.shape, scheme)
    for start in range(0, inputs, _PANEL):
        stop = min(start + _PANEL, inputs)
        owed = upper[:start, start:stop].T @ left[:start]  # what the panels before left to make up
        corner = np.ascontiguousarray(upper[start:stop, start:stop].T)
        for k in range(start, stop):
            i, scale = k - start, by_block[block[k]]
            wanted = corner[i, :i] @ left[start:k]
            wanted += owed[i]
            wanted += left[k]
            wanted /= scale
            levels = round_levels(wanted, scheme)
            codes[order[k]] = to_codes(levels, scheme)
            left[k] -= scale * levels
    return codes.T


def _checked_diagonal(hessian: Floats) -> Floats:
    """A copy of the diagonal of H [I, I]. Raises QuantError if H cannot be a Hessian."""
    if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1] or not hessian.size:
        raise QuantError(f"a Hessian is square, got {hessian.shape}")
    diagonal = hessian.diagonal().copy()
    finite = all(np.isfinite(hessian[i : i + _ROWS]).all() for i in range(0, len(hessian), _ROWS))
    if not finite or diagonal.min() < 0:
        raise QuantError("a Hessian is finite and not negative on its diagonal")
    return diagonal


def _permute(matrix: Floats, order: NDArray[np.intp]) -> None:
    """Reorder rows and columns of [I, I] in place."""
    if np.array_equal(order, np.arange(len(order))):
        return
    for start in range(0, len(order), _FACTOR_PANEL):
        part = slice(start, start + _FACTOR_PANEL)
        matrix[part] = matrix[part][:, order]
    for start in range(0, len(order), _FACTOR_PANEL):
        part = slice(start, start + _FACTOR_PANEL)
        matrix[:, part] = matrix[order, part]


def _decompose(matrix: Floats) -> None:
    """Write U of H = U · D · Uᵀ above the diagonal of H, in place; what is below stays H's.

    A blocked Cholesky factorization from the last panel to the first, H = V · Vᵀ, V upper
    triangular; U is V with each column divided by its diagonal. Raises LinAlgError.
    """
    roots = np.empty(len(matrix), np.float32)
    for start in reversed(range(0, len(matrix), _FACTOR_PANEL)):
        stop = min(start + _FACTOR_PANEL, len(matrix))
        panel = matrix[:stop, start:stop].copy()
        panel[start:] = np.tril(panel[start:]) + np.tril(panel[start:], -1).T
        panel -= matrix[:stop, stop:] @ matrix[start:stop, stop:].T
        flipped = np.linalg.cholesky(panel[start:][::-1, ::-1].astype(np.float64))
        corner = flipped[::-1, ::-1]  # upper triangular, times its transpose the panel's corner
        above = np.triu(np.ones(corner.shape, bool), 1)
        np.copyto(matrix[start:stop, start:stop], corner.astype(np.float32), where=above)
        roots[start:stop] = corner.diagonal()
        matrix[:start, start:stop] = panel[:start] @ np.linalg.inv(corner).T.astype(np.float32)
    matrix /= roots
