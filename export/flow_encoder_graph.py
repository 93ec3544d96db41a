"""Author the flow encoder: one chunk of codes -> mu, caches in place (contract E.3 to E.5).

    codes, lookahead --table--> x [1, n, E] --conv k4, conv k3--> + --blocks--> [1, n, E]
      --repeat 4, conv k9--> [1, 4n, E] --up_embed, blocks, after_norm, proj--> mu [1, M, 4n]

Rows run through the graph and convolutions are matrices over unfolded rows, so everything that is
large quantizes. A chunk sees all of itself, so one call needs no mask but that of empty slots.

Positions need neither a table per length nor a gather. With w = (q + v) W_pos and i = index + i',
the addition theorems give w · R(i - j) = rotate(w, i') · R(index - j): a rotary embedding of the
query by its place in the chunk, and one table of slot sines that all blocks share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.quant.recipe import Recipe, rules_of, unquantized
from antiphon.quant.schemes import Scheme

from .attention import Caches, attend
from .graph import END, GraphBuilder
from .lm_graph import Read
from .reference.config import FlowConfig

Floats = NDArray[np.float32]


def conv_matrix(weight: Floats) -> Floats:
    """Weight [O, C, K] of a convolution -> matrix [O, K·C] over unfolded rows."""
    return np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)


def unfold(b: GraphBuilder, rows: str, kernel: int) -> str:
    """Rows [B, T + K - 1, C] -> [B, T, K·C]: each row with the K - 1 that follow it."""
    ends = [*range(1 - kernel, 0), END]
    return b.concat(2, *(b.slice(rows, 1, k, end) for k, end in enumerate(ends)))


def build_flow_encoder(config: FlowConfig, read: Read, kept: Scheme | Recipe, path: Path) -> Path:
    """Write the engine to `path`; `read` returns a tensor of the flow file as float32."""
    return _FlowEncoder(config, read, kept, path).build()


@dataclass(frozen=True, slots=True)
class _Level:
    """What the blocks of one frame rate share."""

    prefix: str  # of the blocks' tensors
    cache: str  # of the caches' names
    dims: tuple[int | str, ...]  # of the caches
    mask: str  # [rows, C]
    write: str  # int64 [1]
    slots: str  # [E, C]: sines, then cosines, of index - slot
    turn: tuple[str, str]  # cosines and sines [1, rows, E/2] of the place in the chunk


class _FlowEncoder:
    def __init__(self, config: FlowConfig, read: Read, kept: Scheme | Recipe, path: Path) -> None:
        self.config, self.read = config, read
        self.rule_of = rules_of("flow_encoder", kept)
        self.graph = GraphBuilder(path)
        steps = np.arange(0, config.width, 2, dtype=np.float32)
        self.rates = np.exp(steps * np.float32(-math.log(10000.0) / config.width))

    def build(self) -> Path:
        b, c = self.graph, self.config
        width, mels = c.width, c.mel_bins
        codes = b.input("codes", np.int64, [1, "n"])
        self._speaker(b.input("embedding", np.float32, [1, c.speaker_dim]))
        index = b.input("token_index", np.int64, [1])
        x = self._look_ahead(codes)
        level = self._level("token", "encoders", index, b.size(x, 1))
        for i in range(c.blocks):
            x = self._block(x, i, level)
        x = self._up(x)
        frames = b.op("Mul", index, b.ints(c.mel_per_token))
        level = self._level("frame", "up_encoders", frames, b.size(x, 1))
        for i in range(c.up_blocks):
            x = self._block(x, i, level)
        x = self._norm(x, "encoder.after_norm")
        mu = self._float_linear(x, "encoder_proj")
        b.output(b.op("Transpose", mu, name="mu", perm=[0, 2, 1]), np.float32, [1, mels, "4*n"])
        b.output("up_tail_out", np.float32, [1, 2 * c.mel_per_token, width])
        b.output("lookahead_tail_out", np.float32, [1, 2, width])
        b.output("speaker", np.float32, [1, mels])
        return b.save()

    # pieces with names of the file

    def _linear(self, x: str, name: str) -> str:
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        rule = self.rule_of(f"{name}.weight")
        return self.graph.linear(x, name, weight, bias, rule.scheme, rule.method)

    def _float_linear(self, x: str, name: str) -> str:
        """Small and at the border of the engine: never codes."""
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        scheme = unquantized(self.rule_of(f"{name}.weight").scheme)
        return self.graph.linear(x, name, weight, bias, scheme)

    def _half(self, name: str) -> bool:
        return self.rule_of(name).scheme.bits < 32

    def _norm(self, x: str, name: str, eps: float = 1e-5) -> str:
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        return self.graph.layer_norm(x, name, weight, bias, eps)

    def _conv(self, rows: str, name: str) -> str:
        """Convolution without padding over rows [1, T + K - 1, E]."""
        weight, bias = self.read(f"{name}.weight"), self.read(f"{name}.bias")
        unfolded, rule = unfold(self.graph, rows, weight.shape[2]), self.rule_of(f"{name}.weight")
        matrix = conv_matrix(weight)
        return self.graph.linear(unfolded, name, matrix, bias, rule.scheme, rule.method)

    def _speaker(self, embedding: str) -> None:
        """Normalised and mapped to M values (E.3 step 1)."""
        b = self.graph
        norm = b.op("ReduceL2", embedding, b.ints(1), keepdims=1)
        unit = b.op("Div", embedding, b.op("Max", norm, b.scalar(1e-12)))
        b.op("Identity", self._float_linear(unit, "spk_embed_affine_layer"), name="speaker")

    # the way of a chunk

    def _embedded(self) -> str:
        """Every code after `embed` [V, E]: the input layer has no other argument (E.3 step 3)."""
        table = self.read("input_embedding.weight").astype(np.float64)
        x = table @ self.read("encoder.embed.out.0.weight").astype(np.float64).T
        x += self.read("encoder.embed.out.0.bias")
        x -= x.mean(1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-5)
        x = x * self.read("encoder.embed.out.1.weight") + self.read("encoder.embed.out.1.bias")
        x *= math.sqrt(self.config.width)
        half = self._half("input_embedding.weight")
        return self.graph.weight("embedded_codes", x.astype(np.float32), half=half)

    def _look_ahead(self, codes: str) -> str:
        """Codes [1, n] -> rows [1, n, E] that know three tokens of future (E.3 step 4)."""
        b, c, table = self.graph, self.config, self._embedded()
        future = b.input("lookahead", np.int64, [1, c.lookahead_tokens])
        gain = b.input("lookahead_gain", np.float32, [1, c.lookahead_tokens])
        tail = b.input("lookahead_tail", np.float32, [1, 2, c.width])
        x = b.op("Gather", table, codes)
        gain = b.op("Unsqueeze", gain, b.ints(2))
        context = b.op("Mul", b.op("Gather", table, future), gain)
        name = "encoder.pre_lookahead_layer"
        u = self._conv(b.concat(1, x, context), f"{name}.conv1")
        u = b.concat(1, tail, b.op("LeakyRelu", u, alpha=0.01))
        b.op("Identity", b.tail(u, 1, 2), name="lookahead_tail_out")
        return b.op("Add", x, self._conv(u, f"{name}.conv2"))

    def _up(self, x: str) -> str:
        """Rows [1, n, E] -> frames [1, 4n, E] (E.3 steps 6 and 7)."""
        b, rate, width = self.graph, self.config.mel_per_token, self.config.width
        tail = b.input("up_tail", np.float32, [1, 2 * rate, width])
        x = b.op("Unsqueeze", x, b.ints(2))
        x = b.reshape(b.op("Expand", x, b.ints(1, 1, rate, 1)), 1, -1, width)
        x = b.concat(1, tail, x)
        b.op("Identity", b.tail(x, 1, 2 * rate), name="up_tail_out")
        x = self._linear(self._conv(x, "encoder.up_layer.conv"), "encoder.up_embed.out.0")
        x = self._norm(x, "encoder.up_embed.out.1")
        return b.op("Mul", x, b.scalar(math.sqrt(width)))

    def _level(self, name: str, prefix: str, index: str, rows: str) -> _Level:
        """Inputs and position tables of one frame rate; index int64 [1] = rows already cached."""
        b, c = self.graph, self.config
        count, capacity = {"token": ("n", "C"), "frame": ("4*n", "CF")}[name]
        mask = b.input(f"{name}_mask", np.float32, [count, capacity])
        write = b.input(f"{name}_write", np.int64, [1])
        slot = b.op("Range", *(b.op("Squeeze", v) for v in (b.ints(0), b.size(mask, 1), b.ints(1))))
        distance = b.op("Cast", b.op("Sub", index, slot), to=1)  # float32
        angles = b.op("Mul", b.const(f"{name}_rates", self.rates[:, None]), distance)  # [E/2, C]
        slots = b.concat(0, b.op("Sin", angles), b.op("Cos", angles))
        longest = c.chunk_tokens * (c.mel_per_token if name == "frame" else 1)
        place = np.arange(longest, dtype=np.float64)[:, None] * self.rates
        turn = tuple(
            b.slice(b.const(f"{name}_{f.__name__}", f(place)[None]), 1, 0, rows)
            for f in (np.cos, np.sin)
        )
        dims = (1, c.heads, capacity, c.width // c.heads)
        return _Level(f"encoder.{prefix}", name, dims, mask, write, slots, (turn[0], turn[1]))

    def _block(self, x: str, i: int, level: _Level) -> str:
        """Pre-norm attention and SiLU feed-forward; LayerNorm epsilon 1e-12."""
        b, name = self.graph, f"{level.prefix}.{i}"
        h = self._attention(self._norm(x, f"{name}.norm_mha", 1e-12), i, level)
        x = b.op("Add", x, h)
        h = self._linear(self._norm(x, f"{name}.norm_ff", 1e-12), f"{name}.feed_forward.w_1")
        return b.op("Add", x, self._linear(b.silu(h), f"{name}.feed_forward.w_2"))

    def _attention(self, x: str, i: int, level: _Level) -> str:
        """Relative-position attention over the cache (E.4)."""
        b, c, name = self.graph, self.config, f"{level.prefix}.{i}.self_attn"
        dim = c.width // c.heads
        parts = [f"{name}.linear_{p}" for p in "qkv"]
        weight = np.concatenate([self.read(f"{p}.weight") for p in parts])
        bias = np.concatenate([self.read(f"{p}.bias") for p in parts])
        rule = self.rule_of(f"{parts[0]}.weight")
        qkv = b.linear(x, f"{name}.linear_qkv", weight, bias, rule.scheme, rule.method)
        q, k, v = (
            b.split_heads(part, c.heads, dim)
            for part in b.ops("Split", qkv, outputs=3, axis=2, num_outputs=3)
        )
        u, w = (
            b.op("Add", q, b.const(f"{name}.{p}", self.read(f"{name}.{p}")[None, :, None]))
            for p in ("pos_bias_u", "pos_bias_v")
        )
        names = (f"{level.cache}_key_{i}", f"{level.cache}_value_{i}")
        caches = Caches(names, level.dims)
        bias_name = b.op("Add", self._position_scores(w, name, level), level.mask)
        y = attend(b, (u, k, v), caches, bias_name, level.write)
        return self._linear(b.merge_heads(y, c.width), f"{name}.linear_out")

    def _position_scores(self, w: str, name: str, level: _Level) -> str:
        """w = q + v [1, H, n, D] -> scaled position scores [1, H, n, C]."""
        b, c = self.graph, self.config
        dim = c.width // c.heads
        position = f"{name}.linear_pos"
        weight = self.read(f"{position}.weight")  # [H·D, E], sines and cosines alternate
        weight = np.concatenate((weight[:, 0::2], weight[:, 1::2]), axis=1) / math.sqrt(dim)
        heads, half = weight.reshape(c.heads, dim, c.width), self._half(f"{position}.weight")
        matrix = b.weight(position, heads, half=half)
        turned = b.op("RotaryEmbedding", b.op("MatMul", w, matrix), *level.turn)
        return b.op("MatMul", turned, level.slots)
