"""The velocity estimator of the flow: a causal U-Net at one resolution (contract E.7)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import FlowConfig


class CausalConv1d(nn.Conv1d):
    """Kernel 3, two zeros on the left, none on the right."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, T]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class CausalBlock(nn.Module):
    """Convolution, LayerNorm over channels, Mish."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        # the file counts two transpositions, so the norm has index 2
        self.block = nn.Sequential(
            CausalConv1d(channels_in, channels_out),
            nn.Identity(),
            ChannelNorm(channels_out),
            nn.Identity(),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Resnet(nn.Module):
    """Two causal blocks with the time embedding added between them."""

    def __init__(self, channels_in: int, channels: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_dim, channels))
        self.block1 = CausalBlock(channels_in, channels)
        self.block2 = CausalBlock(channels, channels)
        self.res_conv = nn.Conv1d(channels_in, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.block1(x) + self.mlp(time)[:, :, None]
        return self.block2(h) + self.res_conv(x)


class TransformerAttention(nn.Module):
    """Attention of inner width A = heads * 64, which may differ from the channels."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.heads = c.transformer_heads
        inner = self.heads * 64
        self.to_q = nn.Linear(c.channels, inner, bias=False)
        self.to_k = nn.Linear(c.channels, inner, bias=False)
        self.to_v = nn.Linear(c.channels, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, c.channels))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, 64)).transpose(1, 2)
            for p in (self.to_q, self.to_k, self.to_v)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.to_out(y.transpose(1, 2).flatten(2))


class GeluProjection(nn.Module):
    """Linear and exact GELU; a module of its own because the file says `net.0.proj`."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class TransformerFeedForward(nn.Module):
    """`ff.net.0` and `ff.net.2`; index 1 was a dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GeluProjection(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Transformer(nn.Module):
    """Pre-norm transformer over frames; no positions, no time."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.channels)
        self.attn1 = TransformerAttention(c)
        self.norm3 = nn.LayerNorm(c.channels)
        self.ff = TransformerFeedForward(c.channels)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), bias)
        return x + self.ff(self.norm3(x))


class TimeMLP(nn.Module):
    """Sinusoidal time embedding and two linear layers."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.width_in = width_in
        self.linear_1 = nn.Linear(width_in, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """t [B] in 0..1 -> [B, TE]."""
        half = self.width_in // 2
        rates = torch.exp(
            torch.arange(half, device=t.device).float() * (-math.log(10000.0) / (half - 1))
        )
        angles = 1000.0 * t[:, None] * rates
        return self.linear_2(F.silu(self.linear_1(torch.cat((angles.sin(), angles.cos()), -1))))


class Stage(nn.ModuleList):
    """A resnet, its transformers and, at index 2 of the outer stages, a causal convolution."""

    def __init__(self, c: FlowConfig, channels_in: int, *, conv: bool) -> None:
        resnet = Resnet(channels_in, c.channels, 4 * c.channels)
        transformers = nn.ModuleList(Transformer(c) for _ in range(c.transformers))
        super().__init__([resnet, transformers])
        if conv:
            self.append(CausalConv1d(c.channels, c.channels))

    def forward(self, x: Tensor, time: Tensor, bias: Tensor | None) -> Tensor:
        """x [B, Cin, T] -> [B, C, T]; the convolution is left to the caller."""
        x = self[0](x, time).transpose(1, 2)
        for transformer in self[1].children():
            x = transformer(x, bias)
        return x.transpose(1, 2)


class Estimator(nn.Module):
    """Everything the file calls `decoder.estimator.*`."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.config = c
        width = c.channels
        self.time_mlp = TimeMLP(4 * c.mel_bins, 4 * width)
        self.down_blocks = nn.ModuleList([Stage(c, 4 * c.mel_bins, conv=True)])
        self.mid_blocks = nn.ModuleList(Stage(c, width, conv=False) for _ in range(c.mid_blocks))
        self.up_blocks = nn.ModuleList([Stage(c, 2 * width, conv=True)])
        self.final_block = CausalBlock(width, width)
        self.final_proj = nn.Conv1d(width, c.mel_bins, 1)

    def forward(self, inputs: Tensor, t: Tensor, bias: Tensor | None) -> Tensor:
        """Velocity [B, M, T] from inputs [B, 4M, T] = (x, mu, speaker, cond) and times t [B].

        bias [T, T] or [B, 1, T, T]: additive attention bias, 0 where visible; None sees all.
        """
        time = self.time_mlp(t)
        down, up = self.down_blocks[0], self.up_blocks[0]
        skip = down(inputs, time, bias)
        x = down.get_submodule("2")(skip)
        for stage in self.mid_blocks:
            x = stage(x, time, bias)
        x = up(torch.cat((x, skip), dim=1), time, bias)
        x = self.final_block(up.get_submodule("2")(x))
        return self.final_proj(x)
