"""Which graphics card a checkpoint fits, by its tensors' shapes alone (contract I).

Memory = language model + codec + what CUDA and its workspaces are taken to need + KV rows. These
are sums, not measurements; the contract says how each part was derived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .reference.config import LMConfig
from .tensor_files import Shapes

GIB = 1 << 30
WORKSPACE_BYTES = int(1.2 * GIB)  # assumed by the contract for context and workspaces
CODEC_BITS = 16
USABLE = 0.92  # of a card's nominal size
CARDS_GB = (8, 12, 16, 24)
ROWS = (2048, 4096, 10_240)  # a second of speech takes 12.5; fine-tuning saw at most the last
BITS = {  # per weight: of the layers, and of heads and embeddings; scales included
    "bf16": (16.0, 16.0),
    "int8": (8.5, 8.5),
    "int4": (4.5, 8.5),
}
TEXT_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Way:
    """How the parts are placed."""

    host_embedding: bool  # text embedding in the computer's memory: a row is fetched per step
    kv_bits: int

    def __str__(self) -> str:
        said = ["text embedding in host memory"] if self.host_embedding else []
        return ", ".join(said + (["8-bit KV"] if self.kv_bits == 8 else []))


WAYS = (Way(False, 16), Way(True, 16), Way(True, 8))  # each costs more than the one before


@dataclass(frozen=True, slots=True)
class Fit:
    """A placement, and the most rows that a card holds with it: one of ROWS."""

    rows: int
    way: Way
    total_gib: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What a checkpoint's parts take on a card."""

    lm_shapes: Shapes
    config: LMConfig
    codec_values: int  # parameters of speech tokenizer, flow and vocoder together

    def lm_bytes(self, weights: str, *, host_embedding: bool = False) -> int:
        """The language model's weights."""
        layer_bits, other_bits = BITS[weights]
        total = 0.0
        for name, shape in self.lm_shapes.items():
            if not (host_embedding and name == TEXT_EMBEDDING):
                bits = other_bits if "embed" in name or "lm_head" in name else layer_bits
                total += math.prod(shape) * bits / 8
        return int(total)

    def row_bytes(self, kv_bits: int = 16) -> int:
        """One row's keys and values, in all layers of trunk and branches."""
        c = self.config
        layers = c.num_shared_layers + 2 * c.num_modality_layers
        return layers * 2 * c.num_key_value_heads * c.head_dim * kv_bits // 8

    def total_bytes(self, weights: str, way: Way, rows: int) -> int:
        """Everything, for a conversation of `rows`."""
        lm = self.lm_bytes(weights, host_embedding=way.host_embedding)
        codec = self.codec_values * CODEC_BITS // 8
        return lm + codec + WORKSPACE_BYTES + rows * self.row_bytes(way.kv_bits)

    def fits(self, card_gb: int, weights: str) -> tuple[Fit, ...]:
        """Placements that a card holds, simplest first; none where even the last is too large.

        One that holds no more rows than a simpler one is left out.
        """
        found: list[Fit] = []
        lengths = sorted({min(rows, self.config.max_position_embeddings) for rows in ROWS})
        for way in WAYS:
            totals = {rows: self.total_bytes(weights, way, rows) for rows in lengths}
            held = [rows for rows, total in totals.items() if total <= USABLE * card_gb * GIB]
            if held and (not found or held[-1] > found[-1].rows):
                found.append(Fit(held[-1], way, round(totals[held[-1]] / GIB, 1)))
        return tuple(found)

    def table(self) -> dict[int, dict[str, tuple[Fit, ...]]]:
        """Card in GB -> weights -> placements."""
        return {card: {name: self.fits(card, name) for name in BITS} for card in CARDS_GB}
