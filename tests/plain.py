"""The layers of the model contract in plain numpy, float64, written without the reference modules.

A second reading of the same text: sums and loops where the reference calls a library.
Feature maps are [C, T], sequences [T, E]; `w` maps tensor names to arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def weights_of(module) -> dict[str, Array]:
    """All tensors of a torch module as float64."""
    return {n: t.detach().double().numpy() for n, t in module.state_dict().items()}


def under(w: Weights, prefix: str) -> dict[str, Array]:
    """The tensors below `prefix.`, prefix removed."""
    return {n[len(prefix) + 1 :]: a for n, a in w.items() if n.startswith(prefix + ".")}


def linear(w: Weights, name: str, x: Array) -> Array:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def layer_norm(w: Weights, name: str, x: Array, eps: float = 1e-5) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + eps)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def erf(x: Array) -> Array:
    return np.vectorize(math.erf)(x)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))


def mish(x: Array) -> Array:
    return x * np.tanh(np.log1p(np.exp(x)))


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def conv(
    w: Weights,
    name: str,
    x: Array,
    *,
    pad: tuple[int, int] = (0, 0),
    stride: int = 1,
    dilation: int = 1,
) -> Array:
    """Convolution of x [C, T], zeros on both sides as told."""
    kernel = w[f"{name}.weight"]
    x = np.pad(x, ((0, 0), pad))
    reach = dilation * (kernel.shape[2] - 1)
    steps = range(0, x.shape[1] - reach, stride)
    taps = [x[:, t : t + reach + 1 : dilation] for t in steps]
    columns = [np.tensordot(kernel, tap, 2) for tap in taps]
    return np.stack(columns, 1) + w[f"{name}.bias"][:, None]


def conv_transposed(w: Weights, name: str, x: Array, stride: int, padding: int) -> Array:
    """Every input frame adds its kernel to the output; `padding` samples are cut on both sides."""
    kernel = w[f"{name}.weight"]  # [in, out, K]
    out = np.zeros((kernel.shape[1], (x.shape[1] - 1) * stride + kernel.shape[2]))
    for t in range(x.shape[1]):
        out[:, t * stride : t * stride + kernel.shape[2]] += np.tensordot(x[:, t], kernel, 1)
    return out[:, padding : out.shape[1] - padding] + w[f"{name}.bias"][:, None]


def heads(x: Array, count: int) -> Array:
    """[T, E] -> [H, T, D]."""
    return x.reshape(len(x), count, -1).transpose(1, 0, 2)


def attend(scores: Array, v: Array, visible: NDArray[np.bool_]) -> Array:
    """Softmax over the visible keys, times v [H, T, D] -> [T, E]."""
    y = softmax(np.where(visible, scores, -np.inf)) @ v
    return y.transpose(1, 0, 2).reshape(y.shape[1], -1)


def chunked(length: int, chunk: int) -> NDArray[np.bool_]:
    """Contract E.5, entry by entry; everything is visible when chunk is 0."""
    return np.array(
        [[chunk == 0 or j < (i // chunk + 1) * chunk for j in range(length)] for i in range(length)]
    )


def hann(n: int) -> Array:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def fuse_weight_norm(w: Weights) -> dict[str, Array]:
    """g·v/|v|, the norm over all dimensions but the first (contract F.2)."""
    fused = dict(w)
    for name in w:
        if name.endswith(".parametrizations.weight.original0"):
            layer = name.removesuffix(".parametrizations.weight.original0")
            g = fused.pop(name)
            v = fused.pop(f"{layer}.parametrizations.weight.original1")
            rows = [g[i] * v[i] / np.linalg.norm(v[i].ravel()) for i in range(len(v))]
            fused[f"{layer}.weight"] = np.stack(rows)
    return fused
