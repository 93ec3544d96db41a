"""The two mel front ends: Whisper log-mel at 16 kHz (D.3) and the flow's at 24 kHz (E.8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.runtime.mel import slaney_filters


def _spectrum(padded: Tensor, n_fft: int, hop: int) -> Tensor:
    window = torch.hann_window(n_fft, dtype=padded.dtype, device=padded.device)
    return torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)


def whisper_log_mel(pcm: Tensor, mel_bins: int) -> Tensor:
    """Log-mel of one segment: pcm [B, S] at 16 kHz, S a multiple of 160 -> [B, M, S/160].

    The floor is the maximum of each segment minus 8 (log10 units), so this is not causal (D.4).
    """
    power = _spectrum(F.pad(pcm[:, None], (200, 200), mode="reflect")[:, 0], 400, 160)
    power = power[..., :-1].abs().square()
    filters = torch.tensor(slaney_filters(16000, 400, mel_bins, 8000.0)).to(power)
    log = (filters @ power).clamp_min(1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


def flow_mel(pcm: Tensor, mel_bins: int = 80) -> Tensor:
    """Natural-log mel for the flow and the vocoder: pcm [B, S] at 24 kHz -> [B, M, S/480]."""
    padded = F.pad(pcm[:, None], (720, 720), mode="reflect")[:, 0]
    magnitude = (_spectrum(padded, 1920, 480).abs().square() + 1e-9).sqrt()
    filters = torch.tensor(slaney_filters(24000, 1920, mel_bins, 8000.0)).to(magnitude)
    return (filters @ magnitude).clamp_min(1e-5).log()


def pad_to_codes(pcm: Tensor) -> Tensor:
    """Append zeros to [B, S] up to a multiple of 1280 samples (one code, contract D.3 step 3)."""
    return F.pad(pcm, (0, -pcm.shape[-1] % 1280))
