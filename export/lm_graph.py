"""The language model as three graphs: trunk, speech branch, text branch (contract A.3).

trunk    embeddings -> shared layers -> hidden
branch   hidden -> its own layers -> last row -> norm -> head -> logits

A layer:
    x -+- norm -> q, k, v -> q/k norm -> RoPE -> TensorScatter -> Attention -> o -+-> Add
       +--------------------------------------------------------------------------+
    x -+- norm -> silu(gate) * up -> down -+-> Add
       +-----------------------------------+

Query heads that share keys stand below each other as rows, [1, H, S, D] -> [1, G, H/G·S, D], and so
does the mask: ONNX Runtime's Attention would else repeat keys and values for each of them. With
int8 caches rows are rounded to codes before they are scattered (`attention`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from antiphon.quant.recipe import Recipe, RuleOf, rules_of
from antiphon.quant.schemes import Scheme

from .attention import Caches, attend
from .graph import GraphBuilder
from .matrix import Matrix, whole
from .reference.config import LMConfig

Read = Callable[[str], NDArray[np.float32]]
ReadMatrix = Callable[[str], Matrix]  # matrices may come by rows
CacheScales = Callable[[str], tuple[NDArray[np.float32], NDArray[np.float32]]]
Branch = Literal["audio", "text"]  # as the checkpoint spells them
ENGINES: dict[Branch, str] = {"audio": "speech_branch", "text": "text_branch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How an engine is written, apart from the schemes of its matrices."""

    jobs: int = 1  # threads that convert matrices
    caches: CacheScales | None = None  # of int8 keys, values [G, 1, D] by layer; None: float32


_PLAINLY = Writing()


class _Stack:
    """Decoder layers of one graph, sharing rotary rows, mask and write index."""

    def __init__(
        self,
        g: GraphBuilder,
        config: LMConfig,
        read: ReadMatrix,
        rule_of: RuleOf,
        caches: CacheScales | None,
    ) -> None:
        self.g, self.config, self.read, self.rule_of = g, config, read, rule_of
        self.caches = caches
        half = config.head_dim // 2
        self.rope = (
            g.input("cos", np.float32, [1, "S", half]),
            g.input("sin", np.float32, [1, "S", half]),
        )
        mask = g.input("mask", np.float32, ["S", "C"])
        self.group = config.num_attention_heads // config.num_key_value_heads
        self.mask = g.op("Tile", mask, g.ints(self.group, 1)) if self.group > 1 else mask
        self.write_index = g.input("write_index", np.int64, [1])

    def layer(self, x: str, prefix: str, index: int) -> str:
        """Decoder layer `index` of the block `prefix`, whose caches are key_i and value_i."""
        name = f"{prefix}.layers.{index}"
        y = self._attention(self.norm(x, f"{name}.input_layernorm"), name, index)
        x = self.g.op("Add", x, y)
        y = self._mlp(self.norm(x, f"{name}.post_attention_layernorm"), f"{name}.mlp")
        return self.g.op("Add", x, y)

    def norm(self, x: str, name: str) -> str:
        """RMSNorm with the weight `name`."""
        weight = whole(self.read(f"{name}.weight"))
        return self.g.rms_norm(x, name, weight, self.config.rms_norm_eps)

    def linear(self, x: str, name: str) -> str:
        """Multiply by the matrix `name`, stored as its rule says."""
        weight = f"{name}.weight"
        rule = self.rule_of(weight)
        return self.g.linear(x, name, self.read(weight), None, rule.scheme, rule.method)

    def _heads(self, x: str, name: str, letter: str, heads: int) -> str:
        """Project to heads [1, H, S, D], normalise each and rotate."""
        g = self.g
        y = g.reshape(self.linear(x, f"{name}.{letter}_proj"), 0, 0, heads, self.config.head_dim)
        y = g.transpose(self.norm(y, f"{name}.{letter}_norm"), 0, 2, 1, 3)
        return g.op("RotaryEmbedding", y, *self.rope)

    def _attention(self, x: str, layer: str, index: int) -> str:
        c, name = self.config, f"{layer}.self_attn"
        heads, groups = c.num_attention_heads, c.num_key_value_heads
        v = self.linear(x, f"{name}.v_proj")
        q = self._heads(x, name, "q", heads)
        k = self._heads(x, name, "k", groups)
        if self.group > 1:
            q = self.g.reshape(q, 1, groups, -1, c.head_dim)
        caches = Caches(
            (f"key_{index}", f"value_{index}"),
            (1, groups, "C", c.head_dim),
            self.caches(layer) if self.caches else None,
        )
        v = self.g.split_heads(v, groups, c.head_dim)
        y = attend(self.g, (q, k, v), caches, self.mask, self.write_index)
        if self.group > 1:
            y = self.g.reshape(y, 1, heads, -1, c.head_dim)
        y = self.g.merge_heads(y, heads * c.head_dim)
        return self.linear(y, f"{name}.o_proj")

    def _mlp(self, x: str, name: str) -> str:
        g = self.g
        gate, up = self.linear(x, f"{name}.gate_proj"), self.linear(x, f"{name}.up_proj")
        return self.linear(g.op("Mul", g.silu(gate), up), f"{name}.down_proj")


def build_trunk(
    config: LMConfig,
    read: ReadMatrix,
    kept: Scheme | Recipe,
    path: Path,
    how: Writing = _PLAINLY,
) -> Path:
    """Write the shared layers: row embeddings [1, S, H] -> hidden [1, S, H], no norm after.

    read   a tensor by its name in the checkpoint
    kept   how matrices are stored; a scheme stands for the recipe of that name
    """
    g = GraphBuilder(path, jobs=how.jobs)
    x = g.input("embeddings", np.float32, [1, "S", config.hidden_size])
    stack = _Stack(g, config, read, rules_of("trunk", kept), how.caches)
    for i in range(config.num_shared_layers):
        x = stack.layer(x, "model.shared_block", i)
    g.output("hidden", np.float32, [1, "S", config.hidden_size], x)
    return g.save()


def build_branch(
    config: LMConfig,
    branch: Branch,
    read: ReadMatrix,
    kept: Scheme | Recipe,
    path: Path,
    how: Writing = _PLAINLY,
) -> Path:
    """Write one branch: trunk rows [1, S, H] -> logits [1, V] of the last row.

    Arguments as of `build_trunk`.
    """
    vocabulary = {"audio": config.audio_vocab_size, "text": config.vocab_size}[branch]
    g = GraphBuilder(path, jobs=how.jobs)
    x = g.input("hidden", np.float32, [1, "S", config.hidden_size])
    stack = _Stack(g, config, read, rules_of(ENGINES[branch], kept), how.caches)
    for i in range(config.num_modality_layers):
        x = stack.layer(x, f"model.{branch}_block", i)
    last = g.reshape(g.tail(x, 1, 1), 1, config.hidden_size)
    logits = stack.linear(stack.norm(last, f"model.{branch}_norm"), f"{branch}_lm_head")
    g.output("logits", np.float32, [1, vocabulary], logits)
    return g.save()
