"""The speech tokenizer as a streaming graph: log-mel frames in, codes out (contract D.3, D.5).

    log_mel [1, M, 8n] -> conv1 -> gelu -> conv2 (stride 2) -> gelu -> + positions -> layers
        -> mean of 4 frames -> nearest codebook row -> codes [1, n]

State: two frames before each convolution, keys and values of every layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from antiphon.quant.recipe import Recipe, RuleOf, rules_of
from antiphon.quant.schemes import Scheme

from .attention import Caches, attend
from .flow_encoder_graph import conv_matrix, unfold
from .graph import END, Dim, GraphBuilder
from .lm_graph import Read
from .reference.config import TokenizerConfig

TAIL = 2  # frames a kernel of 3 looks back
MEL_PER_CODE = 8
FRAMES = "4*n"  # 50 Hz frames of one call


class _Encoder:
    """Layers of the encoder, sharing mask and write index."""

    def __init__(
        self, g: GraphBuilder, config: TokenizerConfig, read: Read, rule_of: RuleOf
    ) -> None:
        self.g, self.config, self.read, self.rule_of = g, config, read, rule_of
        self.mask = g.input("mask", np.float32, [FRAMES, "C"])
        self.write_index = g.input("write_index", np.int64, [1])

    def convolution(self, x: str, name: str, channels: int, stride: int) -> str:
        """Causal convolution of kernel 3, then GELU: rows [1, T, C] -> [1, T/stride, d].

        A matrix over unfolded rows, so that it quantizes like the others. Its tail is state.
        """
        g, tail = self.g, f"{name}_tail"
        dims: list[Dim] = [1, channels, TAIL]
        rows = g.concat(1, g.transpose(g.input(tail, np.float32, dims), 0, 2, 1), x)
        g.output(f"{tail}_out", np.float32, dims, g.transpose(g.tail(rows, 1, TAIL), 0, 2, 1))
        if stride == 1:
            unfolded = unfold(g, rows, TAIL + 1)
        else:  # rows 2i, 2i + 1 are a pair; row 2i + 2 is the first of the next one
            pairs = g.reshape(rows, 1, -1, 2 * channels)
            now, after = g.slice(pairs, 1, 0, -1), g.slice(pairs, 1, 1, END)
            unfolded = g.concat(2, now, g.slice(after, 2, 0, channels))
        weight = f"encoder.{name}.weight"
        matrix, rule = conv_matrix(self.read(weight)), self.rule_of(weight)
        bias = self.read(f"encoder.{name}.bias")
        y = g.linear(unfolded, name, matrix, bias, rule.scheme, rule.method)
        return g.op("Gelu", y)

    def positions(self, x: str) -> str:
        """Add the learned rows of frames frame_index … frame_index + 4n - 1 to x [1, 4n, d]."""
        g = self.g
        start = g.input("frame_index", np.int64, [1])
        name = "encoder.embed_positions.weight"
        half = self.rule_of(name).scheme.bits < 32
        table = g.weight("embed_positions", self.read(name), half=half)
        return g.op("Add", x, g.slice(table, 0, start, g.op("Add", start, g.size(x, 1))))

    def layer(self, x: str, index: int) -> str:
        name = f"encoder.layers.{index}"
        y = self._attention(self._norm(x, f"{name}.self_attn_layer_norm"), name, index)
        x = self.g.op("Add", x, y)
        y = self._linear(self._norm(x, f"{name}.final_layer_norm"), f"{name}.fc1")
        return self.g.op("Add", x, self._linear(self.g.op("Gelu", y), f"{name}.fc2"))

    def _norm(self, x: str, name: str) -> str:
        return self.g.layer_norm(x, name, self.read(f"{name}.weight"), self.read(f"{name}.bias"))

    def _linear(self, x: str, name: str, bias: bool = True) -> str:
        values = self.read(f"{name}.bias") if bias else None
        weight = f"{name}.weight"
        rule = self.rule_of(weight)
        return self.g.linear(x, name, self.read(weight), values, rule.scheme, rule.method)

    def _attention(self, x: str, layer: str, index: int) -> str:
        heads = self.config.encoder_attention_heads
        head_dim = self.config.d_model // heads
        q, k, v = (
            self.g.split_heads(
                self._linear(x, f"{layer}.self_attn.{letter}_proj", bias=letter != "k"),
                heads,
                head_dim,
            )
            for letter in "qkv"
        )
        caches = Caches((f"key_{index}", f"value_{index}"), (1, heads, "C", head_dim))
        y = attend(self.g, (q, k, v), caches, self.mask, self.write_index)
        y = self.g.merge_heads(y, self.config.d_model)
        return self._linear(y, f"{layer}.self_attn.out_proj")

    def search(self, x: str) -> str:
        """Nearest codebook row of x [1, n, d] as ‖e‖² + ‖x‖² - 2x·e; the lowest index on ties."""
        g = self.g
        rows = self.read("encoder.codebook.weight")
        norms = g.const("codebook.norms", np.square(rows).sum(1, dtype=np.float32))
        # never rounded: codes depend on every bit
        product = g.op("MatMul", x, g.weight("codebook", rows.T))
        size = g.op("ReduceSumSquare", x, g.ints(-1), keepdims=1)
        twice = g.op("Mul", product, g.scalar(2.0))
        distance = g.op("Sub", g.op("Add", norms, size), twice)
        return g.op("ArgMin", distance, axis=-1, keepdims=0, select_last_index=0)


def build_encoder(config: TokenizerConfig, read: Read, kept: Scheme | Recipe, path: Path) -> Path:
    """Write the encoder: log_mel [1, M, 8n] -> codes int64 [1, n]. `read` takes file names."""
    g = GraphBuilder(path)
    x = g.input("log_mel", np.float32, [1, config.num_mel_bins, f"{MEL_PER_CODE}*n"])
    encoder = _Encoder(g, config, read, rules_of("encoder", kept))
    x = encoder.convolution(g.transpose(x, 0, 2, 1), "conv1", config.num_mel_bins, stride=1)
    x = encoder.positions(encoder.convolution(x, "conv2", config.d_model, stride=2))
    for i in range(config.quantize_position):
        x = encoder.layer(x, i)
    x = g.reshape(x, 1, -1, config.pooling_kernel_size, config.d_model)
    x = g.op("ReduceMean", x, g.ints(2), keepdims=0)
    g.output("codes", np.int64, [1, "n"], encoder.search(x))
    return g.save()
