"""Author the flow's estimator: one Euler step over one chunk of frames (contract E.6, E.7).

    x, mu, speaker, cond --both guidance halves--> [2, F, 4M]
      --down--> [2, F, C] --mid ...--> --up (with skip)--> --final--> v [2, F, M]
    x_out = x + dt · ((1 + g) v_0 - g v_1)

Rows run through the graph; a causal convolution is a matrix over three unfolded rows, the first two
of which come from `tails` at the start of a chunk: zeros there are the left padding.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from antiphon.quant.recipe import Recipe, RuleOf, rules_of, unquantized
from antiphon.quant.schemes import Scheme

from .attention import Caches, attend
from .flow_encoder_graph import Floats, conv_matrix, unfold
from .graph import GraphBuilder
from .lm_graph import Read
from .reference.config import FlowConfig

_HEAD_DIM = 64


def stages(config: FlowConfig) -> list[str]:
    """The resnet-and-transformer stages in execution order, under the file's names."""
    middle = [f"mid_blocks.{i}" for i in range(config.mid_blocks)]
    return ["down_blocks.0", *middle, "up_blocks.0"]


def tail_widths(config: FlowConfig) -> list[int]:
    """Input channels of every causal convolution, in execution order."""
    c = config.channels
    return [4 * config.mel_bins, c, c, *[c, c] * config.mid_blocks, 2 * c, c, c, c]


def build_flow_step(config: FlowConfig, read: Read, kept: Scheme | Recipe, path: Path) -> Path:
    """Write the engine to `path`; `read` returns a tensor of the flow file as float32."""
    return _FlowStep(config, read, kept, path).build()


class _FlowStep:
    def __init__(self, config: FlowConfig, read: Read, kept: Scheme | Recipe, path: Path) -> None:
        self.config, rule_of = config, rules_of("flow_step", kept)
        self.read: Read = lambda name: read(f"decoder.estimator.{name}")
        self.rule_of: RuleOf = lambda name: rule_of(f"decoder.estimator.{name}")
        self.graph = GraphBuilder(path)
        self.tails: list[str] = []  # of the convolutions still to come
        self.tails_out: list[str] = []
        self.caches = 0

    def build(self) -> Path:
        b, c = self.graph, self.config
        x = self._inputs()
        widths = tail_widths(c)
        tails = b.input("tails", np.float32, [2, 2, sum(widths)])
        sizes = b.ints(*widths)
        self.tails = b.ops("Split", tails, sizes, outputs=len(widths), axis=2)
        self.mask = b.input("mask", np.float32, ["F", "C"])
        self.write = b.input("write_index", np.int64, [2])
        x = self._estimator(x, self._times())
        v = self._final(x)
        halves = b.const("guidance", np.array([[[1.0 + c.cfg_rate]], [[-c.cfg_rate]]]))
        v = b.op("ReduceSum", b.op("Mul", v, halves), b.ints(0), keepdims=1)
        step = b.op("Mul", b.transpose(v, 0, 2, 1), b.input("dt", np.float32, [1]))
        x_out = b.op("Add", "x", step, name="x_out")
        b.output(x_out, np.float32, [1, c.mel_bins, "F"])
        out = b.op("Concat", *self.tails_out, name="tails_out", axis=2)
        b.output(out, np.float32, [2, 2, sum(widths)])
        return b.save()

    def _inputs(self) -> str:
        """Both guidance halves as rows [2, F, 4M]; the second keeps x alone."""
        b, mels = self.graph, self.config.mel_bins
        frames = [b.input(name, np.float32, [1, mels, "F"]) for name in ("x", "mu", "cond")]
        speaker = b.op("Unsqueeze", b.input("speaker", np.float32, [1, mels]), b.ints(2))
        wide = b.op("Expand", speaker, b.op("Shape", frames[0]))
        both = b.concat(1, frames[0], frames[1], wide, frames[2])
        keep = np.ones((2, 4 * mels, 1), np.float32)
        keep[1, mels:] = 0.0
        return b.transpose(b.op("Mul", both, b.const("halves", keep)), 0, 2, 1)

    def _times(self) -> list[str]:
        """What the time adds inside each resnet [1, C]: one matrix for all of them."""
        b, half = self.graph, 2 * self.config.mel_bins
        rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(1e4) / (half - 1)))
        scaled = b.op("Mul", b.input("t", np.float32, [1]), b.scalar(1000.0))
        angles = b.op("Mul", scaled, b.const("time_rates", rates[None]))
        e = b.concat(1, b.op("Sin", angles), b.op("Cos", angles))
        e = b.silu(self._linear(e, "time_mlp.linear_1"))
        e = self._mish(self._linear(e, "time_mlp.linear_2"))
        names = [f"{stage}.0.mlp.1" for stage in stages(self.config)]
        weight = np.concatenate([self.read(f"{name}.weight") for name in names])
        bias = np.concatenate([self.read(f"{name}.bias") for name in names])
        rule = self.rule_of(f"{names[0]}.weight")
        e = b.linear(e, "resnet_times", weight, bias, rule.scheme, rule.method)
        return b.ops("Split", e, outputs=len(names), axis=1, num_outputs=len(names))

    def _estimator(self, x: str, times: list[str]) -> str:
        """Rows [2, F, 4M] -> rows [2, F, C] that `final_proj` turns into velocities."""
        down, *middle, up = stages(self.config)
        skip = self._stage(x, down, times[0])
        x = self._conv(skip, f"{down}.2")
        for stage, time in zip(middle, times[1:-1], strict=True):
            x = self._stage(x, stage, time)
        x = self._stage(self.graph.concat(2, x, skip), up, times[-1])
        x = self._block(self._conv(x, f"{up}.2"), "final_block")
        assert not self.tails, "a convolution was left out"
        return x

    def _stage(self, x: str, name: str, time: str) -> str:
        """Resnet with the time between its blocks, then the transformers."""
        b = self.graph
        h = b.op("Add", self._block(x, f"{name}.0.block1"), time)
        h = self._block(h, f"{name}.0.block2")
        res = f"{name}.0.res_conv"
        x = b.op("Add", h, self._linear(x, res, self.read(f"{res}.weight")[:, :, 0]))
        for i in range(self.config.transformers):
            x = self._transformer(x, f"{name}.1.{i}")
        return x

    # pieces with names of the file

    def _linear(self, x: str, name: str, weight: Floats | None = None) -> str:
        rule = self.rule_of(f"{name}.weight")
        weight = self.read(f"{name}.weight") if weight is None else weight
        bias = self.read(f"{name}.bias")
        return self.graph.linear(x, name, weight, bias, rule.scheme, rule.method)

    def _final(self, x: str) -> str:
        """Velocities: never by codes."""
        weight, bias = self.read("final_proj.weight")[:, :, 0], self.read("final_proj.bias")
        scheme = unquantized(self.rule_of("final_proj.weight").scheme)
        return self.graph.linear(x, "final_proj", weight, bias, scheme)

    def _norm(self, x: str, name: str) -> str:
        return self.graph.layer_norm(
            x, name, self.read(f"{name}.weight"), self.read(f"{name}.bias")
        )

    def _mish(self, x: str) -> str:
        """x · tanh(softplus(x)) = x (1 - u²) / (1 + u²) with u = sigmoid(-x): fast and bounded."""
        b, one = self.graph, self.graph.scalar(1.0)
        u = b.op("Sigmoid", b.op("Neg", x))
        square = b.op("Mul", u, u)
        gate = b.op("Div", b.op("Sub", one, square), b.op("Add", one, square))
        return b.op("Mul", x, gate)

    def _conv(self, x: str, name: str) -> str:
        """Causal convolution of kernel 3 on rows; takes and leaves a tail."""
        b = self.graph
        rows = b.concat(1, self.tails.pop(0), x)
        self.tails_out.append(b.tail(rows, 1, 2))
        return self._linear(unfold(b, rows, 3), name, conv_matrix(self.read(f"{name}.weight")))

    def _block(self, x: str, name: str) -> str:
        """Causal convolution, LayerNorm over channels, Mish."""
        return self._mish(self._norm(self._conv(x, f"{name}.block.0"), f"{name}.block.2"))

    def _transformer(self, x: str, name: str) -> str:
        """Pre-norm attention over the cache, then the exact-GELU feed-forward."""
        b, c, i = self.graph, self.config, self.caches
        self.caches += 1
        heads, inner = c.transformer_heads, c.transformer_heads * _HEAD_DIM
        attention = f"{name}.attn1"
        weight = np.concatenate([self.read(f"{attention}.to_{p}.weight") for p in "qkv"])
        h = self._norm(x, f"{name}.norm1")
        rule = self.rule_of(f"{attention}.to_q.weight")
        qkv = b.linear(h, f"{attention}.to_qkv", weight, None, rule.scheme, rule.method)
        q, k, v = (
            b.split_heads(part, heads, _HEAD_DIM)
            for part in b.ops("Split", qkv, outputs=3, axis=2, num_outputs=3)
        )
        caches = Caches((f"key_{i}", f"value_{i}"), (2, heads, "C", _HEAD_DIM))
        y = attend(b, (q, k, v), caches, self.mask, self.write)
        x = b.op("Add", x, self._linear(b.merge_heads(y, inner), f"{attention}.to_out.0"))
        h = self._linear(self._norm(x, f"{name}.norm3"), f"{name}.ff.net.0.proj")
        return b.op("Add", x, self._linear(b.op("Gelu", h), f"{name}.ff.net.2"))
