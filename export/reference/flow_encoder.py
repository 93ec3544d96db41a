"""Flow encoder: codes at 12.5 Hz -> hidden frames at 50 Hz (contract E.3 to E.5)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import FlowConfig


def relative_positions(distances: Tensor, width: int) -> Tensor:
    """Interleaved sine/cosine rows R(r) [N, E] of signed distances [N] (contract E.4)."""
    rates = torch.exp(
        torch.arange(0, width, 2, device=distances.device).float() * (-math.log(10000.0) / width)
    )
    angles = distances.float()[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def chunk_mask(length: int, chunk: int, device: torch.device | None = None) -> Tensor:
    """Boolean mask [T, T]: i sees j < (i // chunk + 1) * chunk; everything when chunk is 0."""
    i = torch.arange(length, device=device)
    if chunk == 0:
        return torch.ones(length, length, dtype=torch.bool, device=device)
    return i[None, :] < ((i // chunk + 1) * chunk)[:, None]


class RelativeAttention(nn.Module):
    """Self-attention with Transformer-XL position terms."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = c.heads, c.width // c.heads
        self.linear_q = nn.Linear(c.width, c.width)
        self.linear_k = nn.Linear(c.width, c.width)
        self.linear_v = nn.Linear(c.width, c.width)
        self.linear_out = nn.Linear(c.width, c.width)
        self.linear_pos = nn.Linear(c.width, c.width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(c.heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(c.heads, self.head_dim))

    def split(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, H, T, D]."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, E]; mask [T, T] or [B, 1, T, T], True where visible."""
        t = x.shape[1]
        q = self.linear_q(x).unflatten(-1, (self.heads, self.head_dim))
        k, v = self.split(self.linear_k(x)), self.split(self.linear_v(x))
        distances = torch.arange(t - 1, -t, -1, device=x.device)  # 2T-1 columns
        p = self.split(self.linear_pos(relative_positions(distances, x.shape[2]))[None])
        content = (q + self.pos_bias_u).transpose(1, 2) @ k.transpose(2, 3)
        position = (q + self.pos_bias_v).transpose(1, 2) @ p.transpose(2, 3)  # [B, H, T, 2T-1]
        i = torch.arange(t, device=x.device)
        column = (t - 1 - i[:, None] + i[None, :]).expand(x.shape[0], self.heads, t, t)
        scores = (content + position.gather(3, column)) / math.sqrt(self.head_dim)
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        return self.linear_out((weights @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SiLU feed-forward."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(c.width, c.ffn)
        self.w_2 = nn.Linear(c.ffn, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class EncoderBlock(nn.Module):
    """Pre-norm block; LayerNorm epsilon 1e-12."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(c)
        self.feed_forward = FeedForward(c)
        self.norm_mha = nn.LayerNorm(c.width, eps=1e-12)
        self.norm_ff = nn.LayerNorm(c.width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), mask)
        return x + self.feed_forward(self.norm_ff(x))


class InputLayer(nn.Module):
    """Linear, LayerNorm, then times the square root of the width (contract E.3 step 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * self.scale


class PreLookahead(nn.Module):
    """Three tokens of future, then two of past (contract E.3 step 4)."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(c.width, c.width, c.lookahead_tokens + 1)
        self.conv2 = nn.Conv1d(c.width, c.width, 3)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x [B, T, E], context [B, 3, E]: embedded look-ahead tokens, or zeros at the end."""
        u = F.leaky_relu(self.conv1(torch.cat((x, context), 1).transpose(1, 2)), 0.01)
        return x + self.conv2(F.pad(u, (2, 0))).transpose(1, 2)


class UpLayer(nn.Module):
    """Repeat every frame, then a causal convolution over 2r + 1 frames."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.rate = rate
        self.conv = nn.Conv1d(width, width, 2 * rate + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat_interleave(self.rate, dim=1).transpose(1, 2)
        return self.conv(F.pad(x, (2 * self.rate, 0))).transpose(1, 2)


class FlowEncoder(nn.Module):
    """Everything the file calls `encoder.*`."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.config = c
        self.embed = InputLayer(c.width)
        self.pre_lookahead_layer = PreLookahead(c)
        self.encoders = nn.ModuleList(EncoderBlock(c) for _ in range(c.blocks))
        self.up_layer = UpLayer(c.width, c.mel_per_token)
        self.up_embed = InputLayer(c.width)
        self.up_encoders = nn.ModuleList(EncoderBlock(c) for _ in range(c.up_blocks))
        self.after_norm = nn.LayerNorm(c.width)

    def forward(self, x: Tensor, context: Tensor | None, chunk: int) -> Tensor:
        """Embedded codes x [B, T, E] -> frames [B, 4T, E].

        context [B, 3, E]: embedded look-ahead tokens, or None when finalising (zero vectors).
        chunk: tokens per chunk, 0 for full attention.
        """
        x = self.embed(x)
        zeros = x.new_zeros(x.shape[0], self.config.lookahead_tokens, x.shape[2])
        x = self.pre_lookahead_layer(x, zeros if context is None else self.embed(context))
        mask = chunk_mask(x.shape[1], chunk, x.device)
        for block in self.encoders:
            x = block(x, mask)
        x = self.up_embed(self.up_layer(x))
        mask = chunk_mask(x.shape[1], chunk * self.config.mel_per_token, x.device)
        for block in self.up_encoders:
            x = block(x, mask)
        return self.after_norm(x)
