"""HiFT vocoder: mel at 50 Hz -> 24 kHz samples (contract F)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .config import HiftConfig


class Snake(nn.Module):
    """x + sin²(αx)/α, α per channel on a linear scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + torch.sin(x * alpha).square() / (alpha + 1e-9)


class ResBlock(nn.Module):
    """Three dilated residual pairs."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel - 1) // 2
            return weight_norm(
                nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)
            )

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for act1, conv1, act2, conv2 in parts:
            x = x + conv2(act2(conv1(act1(x))))
        return x


class F0Predictor(nn.Module):
    """mel [B, M, T] -> fundamental frequency [B, T] in Hz; sees 5 frames on each side."""

    def __init__(self, c: HiftConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            width = c.mel_bins if i == 0 else c.f0_channels
            layers += [weight_norm(nn.Conv1d(width, c.f0_channels, 3, padding=1)), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(c.f0_channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        return self.classifier(self.condnet(mel).transpose(1, 2)).squeeze(-1).abs()


class Source(nn.Module):
    """Harmonic source: sines of f0 and its multiples, mixed to one channel."""

    def __init__(self, c: HiftConfig) -> None:
        super().__init__()
        self.config = c
        self.l_linear = nn.Linear(c.harmonics + 1, 1)

    def forward(self, f0: Tensor, noise: Tensor) -> Tensor:
        """f0 [B, T] Hz, noise [B, 480T, 9] standard normal -> source [B, 480T].

        The phase is accumulated per frame and interpolated to samples (closed form, F.3 step 2).
        """
        c, size = self.config, self.config.samples_per_frame
        order = torch.arange(1, c.harmonics + 2, device=f0.device)
        rho = (f0[:, :, None] * order / c.sample_rate_hz) % 1.0
        # the order of the products is the original's: phases are large, and rounding shows
        phase = (rho.cumsum(1) * 2 * math.pi * size).transpose(1, 2)  # [B, 9, T]
        phase = F.interpolate(phase, scale_factor=float(size), mode="linear").transpose(1, 2)
        voiced = (f0 > c.voiced_threshold_hz).float().repeat_interleave(size, 1)[:, :, None]
        sigma = voiced * c.noise_std + (1 - voiced) * c.sine_amplitude / 3
        waves = c.sine_amplitude * phase.sin() * voiced + sigma * noise
        return torch.tanh(self.l_linear(waves)).squeeze(-1)


class Hift(nn.Module):
    """The whole vocoder; 328 tensors, 20,821,295 values at real size."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [c.base_channels // 2**i for i in range(len(c.upsample_rates) + 1)]
        self.m_source = Source(c)
        self.conv_pre = weight_norm(nn.Conv1d(c.mel_bins, widths[0], 7, padding=3))
        self.ups = nn.ModuleList(
            weight_norm(nn.ConvTranspose1d(a, b, k, r, padding=(k - r) // 2))
            for a, b, k, r in zip(
                widths, widths[1:], c.upsample_kernels, c.upsample_rates, strict=False
            )
        )
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for i, width in enumerate(widths[1:]):
            r = math.prod(c.upsample_rates[i + 1 :])
            self.source_downs.append(
                nn.Conv1d(c.n_fft + 2, width, 2 * r if r > 1 else 1, r, padding=r // 2)
            )
            self.source_resblocks.append(ResBlock(width, c.source_kernels[i], c.dilations))
            self.resblocks.extend(ResBlock(width, k, c.dilations) for k in c.resblock_kernels)
        self.conv_post = weight_norm(nn.Conv1d(widths[-1], c.n_fft + 2, 7, padding=3))
        self.f0_predictor = F0Predictor(c)

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.config.n_fft, device=like.device, dtype=like.dtype)

    def _stft(self, source: Tensor) -> Tensor:
        """[B, S] -> real and imaginary parts [B, 18, S/4 + 1]."""
        c = self.config
        z = torch.stft(source, c.n_fft, c.hop, window=self._window(source), return_complex=True)
        return torch.cat((z.real, z.imag), dim=1)

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """mel [B, M, T], source [B, 480T] -> samples [B, 480T] in ±0.99."""
        c = self.config
        spectrum = self._stft(source)
        x = self.conv_pre(mel)
        kinds = len(c.resblock_kernels)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            if i == len(self.ups) - 1:
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.source_resblocks[i](self.source_downs[i](spectrum))
            blocks = self.resblocks[kinds * i : kinds * (i + 1)]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        x = self.conv_post(F.leaky_relu(x, 0.01))
        bins = c.n_fft // 2 + 1
        magnitude = x[:, :bins].exp().clamp(max=100.0)
        phase = x[:, bins:].sin()
        z = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        pcm = torch.istft(z, c.n_fft, c.hop, window=self._window(x))
        return pcm.clamp(-c.audio_limit, c.audio_limit)

    def forward(
        self, mel: Tensor, noise: Tensor, cached_source: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """mel [B, M, T], noise [B, 480T, 9] -> samples [B, 480T], source [B, 480T].

        cached_source [B, n] overwrites the first n source samples (F.3 step 3).
        """
        source = self.m_source(self.f0_predictor(mel), noise)
        if cached_source is not None:
            source = torch.cat((cached_source, source[:, cached_source.shape[1] :]), dim=1)
        return self.decode(mel, source), source
