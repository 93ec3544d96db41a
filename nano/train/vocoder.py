"""Stage 2, the vocoder: HiFT of base 96, one voice, mel and multi-resolution STFT losses.

    python -m nano.train.vocoder --steps 5000

F0 measured by YIN drives the source; the F0 predictor is trained beside it. Needs no other stage.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.export.reference.config import HiftConfig
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.mel import flow_mel

from .corpus import load_index, read
from .loop import Plan, settings, train
from .pitch import yin

CONFIG = HiftConfig(base_channels=96, f0_channels=96)
FRAME = CONFIG.samples_per_frame
SEGMENT = 20  # mel frames
RESOLUTIONS = (256, 512, 1024, 2048)


M = TypeVar("M", bound=nn.Module)


class Averaged(nn.Module, Generic[M]):
    """A model and the running average of its weights (the one that is kept)."""

    live: M
    kept: M

    def __init__(self, model: M, decay: float = 0.995) -> None:
        super().__init__()
        self.live, self.kept, self.decay = model, copy.deepcopy(model), decay
        self.kept.requires_grad_(False)

    @torch.no_grad()
    def average(self) -> None:
        """Call once per step."""
        for kept, live in zip(self.kept.parameters(), self.live.parameters(), strict=True):
            kept.lerp_(live, 1.0 - self.decay)


def spectral_loss(made: Tensor, real: Tensor) -> Tensor:
    """Spectral convergence plus log magnitude, mean over four resolutions. pcm [B, S] each."""
    total = made.new_zeros(())
    for n_fft in RESOLUTIONS:
        window = torch.hann_window(n_fft, device=made.device)
        a, b = (
            torch.stft(x, n_fft, n_fft // 4, window=window, return_complex=True)
            .abs().clamp_min(1e-5)
            for x in (made, real)
        )  # fmt: skip
        total = total + (a - b).norm() / b.norm().clamp_min(1e-3) + F.l1_loss(a.log(), b.log())
    return total / len(RESOLUTIONS)


class Trainer:
    """Batches, losses and evaluation of this stage."""

    def __init__(self, work: Path, model: Averaged[Hift], batch: int) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        everything = sorted(load_index(work, "replies"), key=lambda u: u.path.name)
        self.sounds, self.pitches = [], []
        for utterance in everything:
            pcm = read(utterance, CONFIG.sample_rate_hz)
            pcm = np.pad(pcm, (FRAME * 4, FRAME * 4 + -len(pcm) % FRAME))
            self.sounds.append(pcm)
            self.pitches.append(yin(pcm))
        self.held_out = list(range(0, len(everything), max(1, len(everything) // 12)))[:12]
        lengths = np.array([len(p) for p in self.pitches], np.float64)
        lengths[self.held_out] = 0.0
        self.weights = lengths / lengths.sum()

    def step(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((2, i))
        sounds, pitches = [], []
        for pick in rng.choice(len(self.sounds), self.batch, p=self.weights):
            start = int(rng.integers(0, len(self.pitches[pick]) - SEGMENT))
            gain = 10 ** (rng.uniform(-6, 3) / 20)
            # two frames around, so that the mel of the edges is that of the whole sound
            low, high = (start - 2) * FRAME, (start + SEGMENT + 2) * FRAME
            piece = self.sounds[pick][max(low, 0) : high]
            piece = np.pad(piece, (max(0, -low), SEGMENT * FRAME + 4 * FRAME))
            sounds.append(piece[: (SEGMENT + 4) * FRAME] * gain)
            pitches.append(self.pitches[pick][start : start + SEGMENT])
        wide = torch.from_numpy(np.stack(sounds)).float().clamp(-0.99, 0.99).to(self.device)
        f0 = torch.from_numpy(np.stack(pitches)).to(self.device)
        mel = flow_mel(wide)[:, :, 2:-2]
        real = wide[:, 2 * FRAME : -2 * FRAME]
        live = self.model.live
        noise = torch.randn(len(f0), SEGMENT * FRAME, CONFIG.harmonics + 1, device=self.device)
        source = live.m_source(f0, noise)
        made = live.decode(mel, source)
        mel_l1 = F.l1_loss(flow_mel(made), flow_mel(real))
        spectral = spectral_loss(made, real)
        pitch_l1 = F.l1_loss(live.f0_predictor(mel), f0) / 100.0
        self.model.average()
        return {
            "loss": 2.0 * mel_l1 + spectral + pitch_l1,
            "mel": mel_l1, "spectral": spectral, "pitch": pitch_l1,
        }  # fmt: skip

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Copy synthesis of replies never trained on, with predicted F0: mel L1."""
        torch.manual_seed(0)
        errors = []
        for k in self.held_out:
            real = torch.from_numpy(self.sounds[k])[None].to(self.device)
            mel = flow_mel(real)
            noise = torch.randn(1, mel.shape[2] * FRAME, CONFIG.harmonics + 1, device=self.device)
            made, _ = self.model.kept(mel, noise)
            errors.append(float(F.l1_loss(flow_mel(made), mel)))
        return {"held_out_mel": float(np.mean(errors))}


def main() -> None:
    s = settings(__doc__ or "", steps=5000, batch=10, learning_rate=2e-3)
    hift = Hift(CONFIG)
    nn.init.normal_(hift.f0_predictor.classifier.weight, std=5.0)
    nn.init.constant_(hift.f0_predictor.classifier.bias, 150.0)
    model = Averaged(hift).to(s.device)
    trainer = Trainer(s.work, model, s.batch)
    slow = [p for n, p in model.live.named_parameters() if "f0_predictor.classifier" not in n]
    fast = list(hift.f0_predictor.classifier.parameters())  # in hertz: far to go
    groups = [{"params": slow, "lr": 1.0}, {"params": fast, "lr": 100.0}]
    plan = Plan(name="vocoder", steps=s.steps, learning_rate=s.learning_rate, clip=5.0)
    train(plan, model, trainer.step, s.work, trainer.evaluate, groups)


if __name__ == "__main__":
    main()
