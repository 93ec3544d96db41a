"""Flow-matching decoder: codes, voice -> 80-bin mel at 50 Hz (contract E)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import FlowConfig
from .estimator import Estimator
from .flow_encoder import FlowEncoder, chunk_mask

NOISE_FRAMES = 15_000  # 300 s


def start_noise(mel_bins: int = 80, frames: int = NOISE_FRAMES) -> Tensor:
    """The constant start noise [M, 15000] of contract E.6; depends on the absolute frame index.

    Bit for bit on x86-64 with AVX2. Without it the values of PyTorch 2.13 differ by up to 3e-6;
    other processors were not measured.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(1, mel_bins, NOISE_FRAMES, generator=generator)[0, :, :frames]


def step_times(steps: int) -> list[float]:
    """Cosine schedule 0 … 1, `steps` + 1 values."""
    return [1.0 - math.cos(k / steps * 0.5 * math.pi) for k in range(steps + 1)]


class ConditionalFlow(nn.Module):
    """Holds the estimator under the name the file uses."""

    def __init__(self, c: FlowConfig) -> None:
        super().__init__()
        self.estimator = Estimator(c)


class Flow(nn.Module):
    """The whole decoder; 1121 tensors, 120,724,464 parameters at real size."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.width)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dim, config.mel_bins)
        self.encoder = FlowEncoder(config)
        self.encoder_proj = nn.Linear(config.width, config.mel_bins)
        self.decoder = ConditionalFlow(config)

    def speaker(self, embedding: Tensor) -> Tensor:
        """[B, 192] -> [B, M]; the embedding is normalised first."""
        return self.spk_embed_affine_layer(F.normalize(embedding, dim=1))

    def mu(self, codes: Tensor, *, chunk: int, final: bool) -> Tensor:
        """codes [B, T] -> mu [B, M, 4T], or [B, M, 4(T-3)] when not final (look-ahead)."""
        x, context = self.input_embedding(codes.clamp_min(0)), None
        if not final:
            keep = x.shape[1] - self.config.lookahead_tokens
            x, context = x[:, :keep], x[:, keep:]
        return self.encoder_proj(self.encoder(x, context, chunk)).transpose(1, 2)

    def velocity(
        self, x: Tensor, t: Tensor, condition: tuple[Tensor, Tensor, Tensor], bias: Tensor | None
    ) -> Tensor:
        """One estimator call. condition = mu [B, M, T], speaker [B, M], prompt mel [B, M, T]."""
        mu, speaker, cond = condition
        wide = speaker[:, :, None].expand(-1, -1, x.shape[2])
        return self.decoder.estimator(torch.cat((x, mu, wide, cond), dim=1), t, bias)

    def attention_bias(self, frames: int, chunk: int, device: torch.device) -> Tensor | None:
        """Additive bias [T, T] of the chunk mask in mel frames; None for full attention."""
        if chunk == 0:
            return None
        visible = chunk_mask(frames, chunk * self.config.mel_per_token, device)
        return torch.zeros(frames, frames, device=device).masked_fill(~visible, -1e10)

    @torch.no_grad()
    def generate(
        self,
        codes: Tensor,
        prompt: tuple[Tensor, Tensor, Tensor],
        *,
        noise: Tensor | None = None,
        chunk: int = 0,
        final: bool = True,
    ) -> Tensor:
        """codes [N] -> mel [M, frames]: 4N frames, or 4(N-3) when not final.

        prompt = (codes [P], mel [M, 4P], speaker embedding [192]); chunk 0 is the offline decode,
        otherwise `streaming = True` with that many tokens per chunk. Euler with guidance (E.6).
        """
        prompt_codes, prompt_mel, embedding = prompt
        c, head = self.config, prompt_mel.shape[1]
        mu = self.mu(torch.cat((prompt_codes, codes))[None], chunk=chunk, final=final)
        noise = start_noise(c.mel_bins) if noise is None else noise
        x = noise[:, : mu.shape[2]].to(mu)[None]
        cond = torch.zeros_like(mu)
        cond[:, :, :head] = prompt_mel
        both = [
            torch.cat((v, torch.zeros_like(v))) for v in (mu, self.speaker(embedding[None]), cond)
        ]
        bias = self.attention_bias(x.shape[2], chunk, x.device)
        times = step_times(c.steps)
        t = times[0]
        for end in times[1:]:
            condition = (both[0], both[1], both[2])
            v = self.velocity(x.expand(2, -1, -1), x.new_full((2,), t), condition, bias)
            guided = (1.0 + c.cfg_rate) * v[:1] - c.cfg_rate * v[1:]
            x, t = x + (end - t) * guided, end
        return x[0, :, head:]
