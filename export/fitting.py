"""Matrices of the language model, rounded to fit the inputs that calibration saw.

gptq        later inputs make up for the rounding of earlier ones (`antiphon.quant.gptq`)
awq         inputs are scaled, so that those that matter get a finer grid (`antiphon.quant.awq`);
            then rounded to nearest with searched scales
awq+gptq    both: scaled, then compensated

What scales an input is folded into what makes it, so that the model stays the same:

    norm / s -> q, k, v · s    v / s -> o · s    norm / s -> gate, up · s    up / s -> down · s

One method on one reader of an input is enough to have it scaled; the others are multiplied too and
then rounded as their own rules say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from antiphon.quant import awq, kv_cache, rounding
from antiphon.quant.folding import divide_outputs, multiply_inputs, value_channels
from antiphon.quant.gptq import Factor, factorize, gptq
from antiphon.quant.hessian import Hessian
from antiphon.quant.recipe import AWQ, CALIBRATED, SCALED
from antiphon.runtime.errors import ConfigError

from .checkpoint import Checkpoint
from .lm_graph import ENGINES, ReadMatrix
from .matrix import Fitted, Floats, Matrix, Rows, as_rows, whole
from .plan import INT8_CACHES, Plan
from .statistics import HEADS, READERS, Statistics, input_of, layer_names

_NORMS = {"input_layernorm": "qkv", "post_attention_layernorm": "gate_up"}
_HEAD_NORMS = {f"model.{head.removesuffix('_lm_head')}_norm": (head, "head") for head in HEADS}
_MAKERS = {"self_attn.v_proj": "o", "mlp.up_proj": "down"}  # of inputs that no norm makes
_OUTPUTS = 1024  # of a matrix that scales are searched on, evenly spaced
_SEEN = 512  # rows of the sample that they are searched on

Key = tuple[str, str]  # layer and name of an input


def statistics_for(plan: Plan, source: Checkpoint, folder: Path | None) -> Statistics | None:
    """The statistics that the plan needs, opened; None if it needs none and none are given.

    Raises ConfigError where they are missing, unfinished, or of another checkpoint, CorruptFile
    where int8 caches are wanted and they do not say how large keys and values get.
    """
    if folder is None:
        for needs in _needs_statistics(plan):
            raise ConfigError(
                f"{needs} needs statistics: antiphon calibrate {source.directory} DIR, then give "
                "--statistics DIR"
            )
        return None
    found = Statistics.open(folder, source)
    if plan.kv == INT8_CACHES:
        for layer in (name for name in layer_names(source) if name not in HEADS):
            found.cache_peaks(layer, _cache_shape(source))
    return found


def _cache_shape(source: Checkpoint) -> tuple[int, int]:
    """Heads and channels of the keys and values of one row."""
    return source.lm_config.num_key_value_heads, source.lm_config.head_dim


def _needs_statistics(plan: Plan) -> Iterator[str]:
    """What of the plan cannot be made without."""
    if plan.kv == INT8_CACHES:
        yield "kv int8"
    for name, stored in plan.weights.items():
        if stored.rule.method in CALIBRATED:
            yield f"recipe {plan.recipe.name}: {name} by {stored.rule.method}"


class Fitting:
    """Reads tensors of the language model as they are to be stored."""

    def __init__(
        self, source: Checkpoint, plan: Plan, statistics: Statistics, read: ReadMatrix
    ) -> None:
        """`read` gives tensors as they are; matrices by rows."""
        self._source, self._statistics, self._read = source, statistics, read
        self._stored = {n: w for e in ("trunk", *ENGINES.values()) for n, w in plan.of(e).items()}
        self._scales: dict[Key, Floats | None] = {}
        self._factor: tuple[Key, Factor] | None = None  # of the last input that needed one
        c = source.lm_config
        self._values = value_channels(c.num_attention_heads, c.num_key_value_heads, c.head_dim)

    def __call__(self, name: str) -> Matrix:
        """A tensor by its name in the checkpoint."""
        found, stem = self._read(name), name.removesuffix(".weight")
        layer, _, norm = stem.rpartition(".")
        key = _HEAD_NORMS.get(stem) or ((layer, _NORMS[norm]) if norm in _NORMS else None)
        if key is not None:
            scales = self._scaling(key)
            return found if scales is None else divide_outputs(whole(found), scales)
        return self._matrix(name, as_rows(found)) if name in self._stored else found

    def cache_scales(self, layer: str) -> tuple[Floats, Floats]:
        """Scales [G, 1, D] of a layer's int8 keys and values, which scaled matrices may divide."""
        key, value = self._statistics.cache_peaks(layer, _cache_shape(self._source))
        divisor = self._scaling((layer, _MAKERS["self_attn.v_proj"]))
        if divisor is not None:
            value = value / divisor.reshape(value.shape)
        return kv_cache.scales(key), kv_cache.scales(value)

    def _matrix(self, name: str, rows: Rows) -> Matrix:
        """A matrix with its inputs multiplied, its outputs divided, and its way of rounding."""
        key, method = input_of(name), self._stored[name].rule.method
        scales, made = self._at_inputs(key), _MAKERS.get(name[len(key[0]) + 1 : -len(".weight")])
        divisor = self._scaling((key[0], made)) if made else None
        if scales is not None or divisor is not None:
            rows = _Scaled(rows, scales, divisor)
        if method not in CALIBRATED:
            return rows
        if method == AWQ:
            return Fitted(rows, rounding.search)
        factor = self._factor_of(key, name)
        return Fitted(rows, lambda block, scheme: gptq(block, factor, scheme))

    def _at_inputs(self, key: Key) -> Floats | None:
        """What the inputs [I] of a matrix are divided by; query heads share those of a value."""
        scales = self._scaling(key)
        return scales if scales is None or key[1] != "o" else scales[self._values]

    def _scaling(self, key: Key) -> Floats | None:
        """What the makers of an input are divided by; None where it stays as it is."""
        if key not in self._scales:
            layer, name = key
            readers = [f"{layer}.{r}.weight" for r in READERS.get(name, ())] or [f"{layer}.weight"]
            chosen = [r for r in readers if self._stored[r].rule.method in SCALED]
            self._scales[key] = self._search(key, chosen) if chosen else None
        return self._scales[key]

    def _search(self, key: Key, readers: Sequence[str]) -> Floats:
        rows = self._statistics.inputs(readers[0]).rows
        scheme = self._stored[readers[0]].scheme.fit(rows.shape[1])
        source = self._values if key[1] == "o" else None
        matrices = [self._some(name) for name in readers]
        seen = rows[:: -(-len(rows) // _SEEN)]
        return awq.scales(matrices, seen, scheme, source=source).scales

    def _some(self, name: str) -> Floats:
        """Rows of a matrix, evenly spaced."""
        count = self._source.shapes("lm")[name][0]
        every = range(0, count, -(-count // _OUTPUTS))
        return np.concatenate([self._source.read_rows("lm", name, i, i + 1) for i in every])

    def _factor_of(self, key: Key, name: str) -> Factor:
        """Made once for all matrices that read an input; the last one is remembered."""
        if self._factor is None or self._factor[0] != key:
            self._factor = None  # 604 MB for 12,288 inputs: never two at a time
            rows, scales = self._statistics.inputs(name).rows, self._at_inputs(key)
            hessian = Hessian(rows.shape[1])
            for start in range(0, len(rows), _SEEN):
                x = rows[start : start + _SEEN].astype(np.float32)
                hessian.add(x if scales is None else x / scales)
            self._factor = key, factorize(hessian.matrix(), overwrite=True)
        return self._factor[1]


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Rows of a matrix [O, I], its inputs multiplied and its outputs divided."""

    rows: Rows
    inputs: Floats | None  # [I]
    outputs: Floats | None  # [O]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    def read(self, start: int, stop: int) -> Floats:
        block = self.rows.read(start, stop)
        if self.inputs is not None:
            block = multiply_inputs(block, self.inputs)
        return block if self.outputs is None else divide_outputs(block, self.outputs[start:stop])
