"""Activation-aware scaling: give the weights that large inputs meet a finer grid.

Multiplying the weights of an input by s > 1 before rounding makes their error s times smaller
relative to them; dividing the input by s undoes it (see `folding`). Scales follow the inputs'
magnitudes, s = |x|^a, and the exponent a is the one of least output error on a sample of inputs
(Lin et al. 2023, AWQ, arXiv 2306.00978). a = 0 is no scaling, so that the result is never worse on
the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .blocks import Quantized, dequantize, quantize
from .schemes import QuantError, Scheme

Floats = NDArray[np.float32]

_STEPS = 20  # exponents tried between 0 and 1
_ROWS = 1024  # of each matrix that are tried, evenly spaced
_SMALLEST = 1e-4  # magnitude of an input, relative to the mean: bounds the scale of a silent one


class Scaling(NamedTuple):
    """The scales chosen and what they gain on the sample."""

    scales: Floats  # [sources], geometric middle of smallest and largest 1
    exponent: float  # 0 … 1
    error: float  # output error, relative to the outputs' power; mean over the matrices
    unscaled: float  # the same with exponent 0


def scales(
    matrices: Sequence[Floats],
    sample: NDArray[np.floating],
    scheme: Scheme,
    *,
    source: NDArray[np.intp] | None = None,
    method: Callable[[Floats, Scheme], Quantized] = quantize,
) -> Scaling:
    """Scales for matrices [O, I] that read the same inputs, of which `sample` holds rows [N, I].

    source [I]: which channel of the layer before each input comes from, where several share one
    (`folding.value_channels`); None: each its own. Fold `scales` into that layer and
    `scales[source]` into the matrices. method: the rounding that will follow. The time grows with
    N, of which a few hundred do.
    Raises QuantError for shapes that do not agree and for values that are not finite.
    """
    x = np.ascontiguousarray(sample, np.float32)
    origin = np.arange(x.shape[-1]) if source is None else source
    _check(matrices, x, origin)
    tried = [m[:: -(-len(m) // _ROWS)].astype(np.float32, copy=False) for m in matrices]
    magnitude = _magnitudes(x, origin)
    exponents = np.linspace(0, 1, _STEPS + 1).tolist()
    candidates = [_scales(magnitude, exponent) for exponent in exponents]
    errors = [_output_error(tried, x, s[origin], lambda m: method(m, scheme)) for s in candidates]
    best = int(np.argmin(errors))
    return Scaling(candidates[best], exponents[best], errors[best], errors[0])


def _check(matrices: Sequence[Floats], x: Floats, origin: NDArray[np.intp]) -> None:
    widths = {m.shape[1] for m in matrices}
    if x.ndim != 2 or widths != {x.shape[1]} or origin.shape != x.shape[1:] or not len(x):
        raise QuantError(
            f"matrices of {sorted(widths)} inputs, a sample {x.shape}, sources {origin.shape}; "
            "need one width and at least one row"
        )
    if not np.isfinite(x).all():
        raise QuantError("an input of the layer is not finite; calibrate in float32")


def _magnitudes(x: Floats, origin: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean |x| of each source channel over rows [N, I], in units of their mean; positive."""
    each = np.abs(x).mean(axis=0, dtype=np.float64)
    shared = np.bincount(origin, weights=each) / np.maximum(np.bincount(origin), 1)
    return np.maximum(shared / (shared.mean() or 1), _SMALLEST)


def _scales(magnitude: NDArray[np.float64], exponent: float) -> Floats:
    """Magnitudes to a power, centred so that neither norms nor weights leave their range."""
    s: NDArray[np.float64] = magnitude**exponent
    return np.asarray(s / np.sqrt(s.max() * s.min()), np.float32)


def _output_error(
    matrices: Sequence[Floats], x: Floats, scales: Floats, rounded: Callable[[Floats], Quantized]
) -> float:
    """Power of the outputs' error over that of the outputs, averaged over the matrices.

    Relative, because matrices that share an input differ in the size of their outputs.
    """
    total = 0.0
    for matrix in matrices:
        error = dequantize(rounded(matrix * scales)) / scales - matrix
        power = float(np.square(matrix @ x.T).sum(dtype=np.float64))
        noise = float(np.square(error @ x.T).sum(dtype=np.float64))
        total += noise / power if power else 0.0
    return total / len(matrices)
