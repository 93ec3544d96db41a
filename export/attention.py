"""Attention over caches that the runtime keeps: rows are scattered in place, then attended to.

    float32   K, V -> TensorScatter -> Attention
    int8      K, V / scale -> QuantizeLinear -> TensorScatter -> Cast -> Attention   of each head
                                                       q · scale of K ---^      · scale of V

Scales (`antiphon.quant.kv_cache`) multiply the query and the result, which are short: of the caches
only codes are read. Heads are cast one at a time: their floats stay in the processor's own memory,
where those of all heads at once would go to the computer's and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike
from onnx import TensorProto

from .graph import Dim, GraphBuilder
from .matrix import Floats


@dataclass(frozen=True, slots=True)
class Caches:
    """Keys and values of one layer: inputs of the engine, and outputs `NAME_out` in their place."""

    names: tuple[str, str]
    dims: Sequence[Dim]  # [B, G, C, D]
    scales: tuple[Floats, Floats] | None = None  # [G, 1, D] of int8 keys and values; else float32


def attend(
    g: GraphBuilder, qkv: tuple[str, str, str], caches: Caches, mask: str, write_index: str
) -> str:
    """Append K, V [B, G, S, D] at slot write_index [B] and attend: -> [B, H, S, D].

    mask [S, C] is additive. Scale 1/√D. With int8 caches H is G.
    """
    q, *rows = qkv
    if caches.scales is None:
        keys, values = (
            _scatter(g, name, row, write_index, caches.dims)
            for name, row in zip(caches.names, rows, strict=True)
        )
        return g.op("Attention", q, keys, values, mask)
    grown, scales = [], []
    for name, row, scale in zip(caches.names, rows, caches.scales, strict=True):
        scales.append(g.const(f"{name}.scale", scale[None]))
        code = _codes(g, g.op("Div", row, scales[-1]))
        grown.append(_scatter(g, name, code, write_index, caches.dims, np.int8))
    q, heads, parts = g.op("Mul", q, scales[0]), len(caches.scales[0]), []
    queries = g.ops("Split", q, outputs=heads, axis=1, num_outputs=heads)
    for i, part in enumerate(queries):
        sides = (g.op("Cast", g.slice(x, 1, i, i + 1), to=TensorProto.FLOAT) for x in grown)
        parts.append(g.op("Attention", part, *sides, mask))
    return g.op("Mul", g.concat(1, *parts), scales[1])


def _scatter(
    g: GraphBuilder,
    cache: str,
    rows: str,
    write_index: str,
    dims: Sequence[Dim],
    dtype: DTypeLike = np.float32,
) -> str:
    """Write rows [B, G, S, D] into the cache; declares it, returns it grown."""
    g.input(cache, dtype, dims)
    grown = g.op("TensorScatter", cache, rows, write_index, name=f"{cache}_out", axis=2)
    return g.output(grown, dtype, dims)


def _codes(g: GraphBuilder, x: str) -> str:
    """x rounded to the nearest int8, ties to even."""
    return g.op("QuantizeLinear", x, g.scalar(1.0), output_dtype=TensorProto.INT8)
