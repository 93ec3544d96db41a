"""The two-branch language model: shared trunk, text branch, audio branch (contract A)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LMConfig

KV = tuple[Tensor, Tensor]  # keys, values, each [B, G, T, D]


class RMSNorm(nn.Module):
    """Root-mean-square norm; normalised in float32, rounded, then scaled (contract A.3)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotary(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> KV:
    """Cosine and sine rows [T, D] of positions [T]; the two halves are equal (half-split RoPE)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    angles = positions.float().cpu()[:, None] * (1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos().to(positions.device, dtype), angles.sin().to(positions.device, dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to x [B, H, T, D]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class Attention(nn.Module):
    """Grouped-query attention with per-head q/k norm before RoPE (contract A.3, steps 2-6)."""

    def __init__(self, c: LMConfig) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim = (
            c.num_attention_heads,
            c.num_key_value_heads,
            c.head_dim,
        )
        self.q_proj = nn.Linear(c.hidden_size, self.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.groups * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.groups * c.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def forward(self, x: Tensor, rope: KV, past: KV | None) -> tuple[Tensor, KV]:
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.groups, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.groups, self.head_dim).transpose(1, 2)
        q, k = rotate(q, *rope), rotate(k, *rope)
        mask = None
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
            total = k.shape[2]
            mask = torch.ones(t, total, dtype=torch.bool, device=x.device).tril(total - t)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1)), (k, v)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, c: LMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm Qwen3 layer."""

    def __init__(self, c: LMConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, rope: KV, past: KV | None) -> tuple[Tensor, KV]:
        y, kv = self.self_attn(self.input_layernorm(x), rope, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), kv


class Block(nn.Module):
    """A stack of layers that owns one group of the KV cache."""

    def __init__(self, c: LMConfig, depth: int) -> None:
        super().__init__()
        self.config = c
        self.layers = nn.ModuleList(DecoderLayer(c) for _ in range(depth))

    def forward(self, x: Tensor, past: list[KV] | None = None) -> tuple[Tensor, list[KV]]:
        """x [B, T, H] -> hidden [B, T, H] and the group's grown cache, one KV per layer."""
        start = past[0][0].shape[2] if past else 0
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        rope = rotary(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        grown: list[KV] = []
        for i, layer in enumerate(self.layers):
            x, kv = layer(x, rope, past[i] if past else None)
            grown.append(kv)
        return x, grown


class Backbone(nn.Module):
    """Everything the files call `model.*`."""

    def __init__(self, c: LMConfig) -> None:
        super().__init__()
        self.shared_block = Block(c, c.num_shared_layers)
        self.text_block = Block(c, c.num_modality_layers)
        self.audio_block = Block(c, c.num_modality_layers)
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.audio_embed = nn.Embedding(c.audio_vocab_size, c.hidden_size)
        self.text_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.audio_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class MossSpeechLM(nn.Module):
    """The whole language model; 446 tensors at real size (contract A.2)."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.text_lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.audio_lm_head = nn.Linear(config.hidden_size, config.audio_vocab_size, bias=False)

    def embed(self, grid: Tensor) -> Tensor:
        """Row embeddings [B, T, H] of grid rows [B, T, 2] = (text id, audio id). A selection."""
        text, audio = grid.unbind(-1)
        spoken = text == self.config.modality_pad_token_id
        text_rows = self.model.embed_tokens(text.masked_fill(spoken, 0))
        audio_rows = self.model.audio_embed(audio.masked_fill(~spoken, 0))
        return torch.where(spoken[..., None], audio_rows, text_rows)

    def text_logits(self, hidden: Tensor, past: list[KV] | None = None) -> tuple[Tensor, list[KV]]:
        """Trunk rows [B, T, H] -> text logits [B, T, V] and the text group's cache."""
        x, kv = self.model.text_block(hidden, past)
        return self.text_lm_head(self.model.text_norm(x)), kv

    def audio_logits(self, hidden: Tensor, past: list[KV] | None = None) -> tuple[Tensor, list[KV]]:
        """Trunk rows [B, T, H] -> audio logits [B, T, V] and the audio group's cache."""
        x, kv = self.model.audio_block(hidden, past)
        return self.audio_lm_head(self.model.audio_norm(x)), kv

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Grid [B, T, 2] -> text logits [B, T, V_text], audio logits [B, T, V_audio]. No cache."""
        hidden, _ = self.model.shared_block(self.embed(grid))
        return self.text_logits(hidden)[0], self.audio_logits(hidden)[0]
