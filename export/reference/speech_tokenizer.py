"""Speech tokenizer: causal Whisper encoder, mean pooling, nearest codebook row (contract D)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TokenizerConfig
from .mel import pad_to_codes, whisper_log_mel


class EncoderAttention(nn.Module):
    """Whisper attention: the key projection has no bias; plain causal mask."""

    def __init__(self, c: TokenizerConfig) -> None:
        super().__init__()
        self.heads = c.encoder_attention_heads
        self.q_proj = nn.Linear(c.d_model, c.d_model)
        self.k_proj = nn.Linear(c.d_model, c.d_model, bias=False)
        self.v_proj = nn.Linear(c.d_model, c.d_model)
        self.out_proj = nn.Linear(c.d_model, c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (
            p(x).view(b, t, self.heads, -1).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, -1))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer, exact (erf) GELU."""

    def __init__(self, c: TokenizerConfig) -> None:
        super().__init__()
        self.self_attn = EncoderAttention(c)
        self.self_attn_layer_norm = nn.LayerNorm(c.d_model)
        self.fc1 = nn.Linear(c.d_model, c.encoder_ffn_dim)
        self.fc2 = nn.Linear(c.encoder_ffn_dim, c.d_model)
        self.final_layer_norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperVQEncoder(nn.Module):
    """Everything the file calls `encoder.*`; 246 tensors at real size (contract D.2)."""

    def __init__(self, c: TokenizerConfig) -> None:
        super().__init__()
        self.pool = c.pooling_kernel_size
        self.conv1 = nn.Conv1d(c.num_mel_bins, c.d_model, 3)
        self.conv2 = nn.Conv1d(c.d_model, c.d_model, 3, stride=2)
        self.embed_positions = nn.Embedding(c.max_source_positions, c.d_model)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.quantize_position))
        self.codebook = nn.Embedding(c.quantize_vocab_size, c.d_model)

    def frames(self, log_mel: Tensor) -> Tensor:
        """log-mel [B, M, F] -> frames at 50 Hz [B, F/2, d]. Frame i depends on mel 0 … 2i only."""
        x = F.gelu(self.conv1(F.pad(log_mel, (2, 0))))
        x = F.gelu(self.conv2(F.pad(x, (2, 0)))).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, log_mel: Tensor) -> Tensor:
        """log-mel [B, M, 8n] -> pooled frames at 12.5 Hz [B, n, d]."""
        x = self.frames(log_mel)
        return x.unflatten(1, (-1, self.pool)).mean(2)

    def quantize(self, pooled: Tensor) -> Tensor:
        """pooled [B, n, d] -> codes int64 [B, n]; nearest row in float32, lowest index on ties."""
        x, e = pooled.float(), self.codebook.weight.float()
        distance = e.square().sum(-1) + x.square().sum(-1, keepdim=True) - 2 * (x @ e.T)
        return distance.argmin(-1)


class SpeechTokenizer(nn.Module):
    """Waveform to codes, 12.5 per second."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = WhisperVQEncoder(config)

    def encode(self, pcm: Tensor) -> Tensor:
        """pcm [S] float32 at 16 kHz -> codes int64 [ceil(S/1280)], segment by segment."""
        codes = [torch.zeros(0, dtype=torch.int64)]
        for segment in pcm.split(self.config.segment_samples) if len(pcm) else ():
            mel = whisper_log_mel(pad_to_codes(segment[None]), self.config.num_mel_bins)
            codes.append(self.encoder.quantize(self.encoder(mel))[0])
        return torch.cat(codes)
