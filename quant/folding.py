"""Scaling a layer's inputs without changing the model: what multiplies here divides before.

    norm · 1/s  ->  x/s  ->  weight · s  ->  the same y          s [I] > 0

Where inputs come from, and so what is divided:
    q, k, v        the weight [H] of the norm before attention
    gate, up       the weight [H] of the norm before the MLP
    o              the rows of v; query heads share value heads, see `value_channels`
    down           the rows of up: silu(gate) · up is linear in it
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .schemes import QuantError

Floats = NDArray[np.float32]


def multiply_inputs(weight: Floats, scales: ArrayLike) -> Floats:
    """Weight [O, I] of a layer whose inputs [I] were divided by `scales`."""
    return weight * _positive(scales, weight.shape[-1])


def divide_outputs(weight: Floats, scales: ArrayLike) -> Floats:
    """What makes the inputs, with its outputs divided by `scales` [I].

    weight [I, …]: a matrix whose rows are outputs, or the vector of a norm or a bias.
    """
    s = _positive(scales, weight.shape[0])
    return weight / s.reshape(-1, *(1,) * (weight.ndim - 1))


def value_channels(heads: int, groups: int, head_dim: int) -> NDArray[np.intp]:
    """Which row of v_proj [G·D, …] each input of o_proj [H·D] comes from: [H·D].

    heads H query heads share groups G of key and value heads, in runs of H/G.
    """
    if groups <= 0 or heads % groups:
        raise QuantError(f"{heads} query heads cannot share {groups} value heads evenly")
    group = np.repeat(np.arange(groups), heads // groups)
    return (group[:, None] * head_dim + np.arange(head_dim)).reshape(-1)


def _positive(scales: ArrayLike, count: int) -> Floats:
    """Scales as float32 [count]. Raises QuantError unless all are positive and finite."""
    s = np.asarray(scales, np.float32)
    if s.shape != (count,) or not (np.isfinite(s).all() and (s > 0).all()):
        raise QuantError(f"need {count} positive scales, got {s.shape} from {s.min(initial=0)}")
    return s
