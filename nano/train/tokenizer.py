"""Stage 1, the speech tokenizer: tiny.en's encoder made causal, one codebook, an ASR objective.

    python -m nano.train.tokenizer --steps 4000

Letters are recognised twice: by CTC on the 50 Hz frames, and through the codebook, where each code
(12.5 Hz is slower than English letters) predicts four CTC frames. Only the encoder is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.export.reference.mel import pad_to_codes, whisper_log_mel
from antiphon.export.reference.speech_tokenizer import WhisperVQEncoder

from ..judges import word_errors
from .corpus import Pcm, Utterance, augment, development, load_index, read
from .loop import Plan, settings, train
from .whisper_init import CONFIG, initialised_encoder

LETTERS = "_ abcdefghijklmnopqrstuvwxyz'"  # index 0 is the CTC blank
SUBFRAMES = 4
QUANTIZE_FROM = 150  # steps of continuous training before the codebook is filled
BLEND = 200  # steps over which quantized frames replace continuous ones


def spell(text: str) -> list[int]:
    """Letter indices of a sentence; anything that is not a letter becomes a space."""
    plain = "".join(c if c in LETTERS[2:] else " " for c in text.lower())
    return [LETTERS.index(c) for c in " ".join(plain.split())]


def greedy(logits: Tensor) -> str:
    """Best path of CTC logits [T, 29]."""
    best = torch.unique_consecutive(logits.argmax(-1))
    return "".join(LETTERS[i] for i in best.tolist() if i)


class Codebook(nn.Module):
    """EMA statistics of the codebook (decay 0.99); dead rows restart from the batch."""

    count: Tensor
    total: Tensor
    idle: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(size))
        self.register_buffer("total", torch.zeros(size, width))
        self.register_buffer("idle", torch.zeros(size))

    @torch.no_grad()
    def fill(self, weight: Tensor, frames: Tensor) -> None:
        """Start from k-means (8 rounds) over frames [N, d]."""
        rows = frames[torch.randperm(len(frames), device=frames.device)[: len(weight)]].clone()
        for _ in range(8):
            nearest = torch.cdist(frames, rows).argmin(1)
            hot = F.one_hot(nearest, len(rows)).to(frames)
            size = hot.sum(0)
            rows = torch.where(size[:, None] > 0, hot.T @ frames / size.clamp_min(1)[:, None], rows)
        weight.copy_(rows)
        self.count.fill_(1.0)
        self.total.copy_(rows)

    @torch.no_grad()
    def update(self, weight: Tensor, frames: Tensor, codes: Tensor) -> None:
        """Move the rows used by frames [N, d] with codes [N]."""
        hot = F.one_hot(codes, len(weight)).to(frames)
        used = hot.sum(0)
        self.count.mul_(0.99).add_(used, alpha=0.01)
        self.total.mul_(0.99).add_(hot.T @ frames, alpha=0.01)
        weight.copy_(self.total / self.count.clamp_min(1e-5)[:, None])
        self.idle = torch.where(used > 0, 0, self.idle + 1)
        dead = (self.idle > 80).nonzero()[:, 0][: len(frames) // 4]
        if len(dead):
            rows = frames[torch.randperm(len(frames), device=frames.device)[: len(dead)]]
            weight[dead], self.total[dead] = rows, rows
            self.count[dead], self.idle[dead] = 1.0, 0.0


class Recognizer(nn.Module):
    """Encoder, codebook statistics and the two recognition heads."""

    def __init__(self, encoder: WhisperVQEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder.codebook.weight.requires_grad_(False)
        width = CONFIG.d_model
        self.codebook = Codebook(CONFIG.quantize_vocab_size, width)
        self.fast_head = nn.Linear(width, len(LETTERS))
        self.narrow = nn.Linear(width, 192)
        layer = nn.TransformerEncoderLayer(192, 4, 512, 0.0, "gelu", batch_first=True)
        self.context = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.slow_head = nn.Linear(192, SUBFRAMES * len(LETTERS))

    def read_codes(self, pooled: Tensor, lengths: Tensor) -> Tensor:
        """Quantized frames [B, n, d] -> CTC logits [B, 4n, 29]."""
        n = pooled.shape[1]
        padding = torch.arange(n, device=pooled.device)[None] >= lengths[:, None]
        at = torch.arange(n)[:, None] / 10000 ** (torch.arange(96)[None] / 96)
        x = self.narrow(pooled) + torch.cat((at.sin(), at.cos()), 1).to(pooled)
        x = self.context(x, src_key_padding_mask=padding)
        return self.slow_head(x).unflatten(-1, (SUBFRAMES, len(LETTERS))).flatten(1, 2)


class Trainer:
    """Batches, losses and evaluation of this stage."""

    def __init__(self, work: Path, model: Recognizer, batch: int) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        utterances = [u for s in ("questions", "accents", "replies") for u in load_index(work, s)]
        self.sounds = [read(u, 16000) for u in utterances]
        self.spelled = [spell(u.text) for u in utterances]
        share = {"replies": 0.5}
        weights = np.array([share.get(u.path.parent.name, 1.0) for u in utterances])
        self.weights = weights / weights.sum()
        self.recent: list[Tensor] = []  # frames of the last steps, to fill the codebook from
        evaluation = development(load_index(work, "eval"))[:60]
        self.held_out: list[tuple[Utterance, Pcm]] = [(u, read(u, 16000)) for u in evaluation]

    def mels(self, sounds: list[Pcm]) -> tuple[Tensor, Tensor]:
        """Log-mel [B, M, 8n] padded with each sound's floor, and codes per sound [B]."""
        mels = [
            whisper_log_mel(pad_to_codes(torch.from_numpy(s)[None]), CONFIG.num_mel_bins)[0]
            for s in sounds
        ]
        lengths = torch.tensor([m.shape[1] // 8 for m in mels])
        out = torch.zeros(len(mels), CONFIG.num_mel_bins, int(lengths.max()) * 8)
        for row, mel in zip(out, mels, strict=True):
            row[:] = mel.min()
            row[:, : mel.shape[1]] = mel
        return out.to(self.device), lengths.to(self.device)

    def mask(self, mels: Tensor, rng: np.random.Generator) -> Tensor:
        """SpecAugment: one stripe of bins and one of frames."""
        for mel in mels:
            if rng.random() < 0.5:
                low = int(rng.integers(0, 70))
                mel[low : low + int(rng.integers(2, 12))] = mel.mean()
            if rng.random() < 0.5:
                start = int(rng.integers(0, mel.shape[1]))
                mel[:, start : start + int(rng.integers(4, 16))] = mel.min()
        return mels

    def step(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((1, i))
        picks = rng.choice(len(self.sounds), self.batch, p=self.weights)
        others = rng.choice(len(self.sounds), self.batch)
        sounds = [
            augment(self.sounds[a], rng, self.sounds[b]) for a, b in zip(picks, others, strict=True)
        ]
        mels, lengths = self.mels(sounds)
        m = self.model
        frames = m.encoder.frames(self.mask(mels, rng))
        pooled = frames.unflatten(1, (-1, m.encoder.pool)).mean(2)
        quantized, commit = self.quantize(i, pooled, lengths)
        targets = [torch.tensor(self.spelled[p]) for p in picks]
        slow = self.ctc(m.read_codes(quantized, lengths), lengths * SUBFRAMES, targets)
        fast = self.ctc(m.fast_head(frames), lengths * m.encoder.pool, targets)
        return {
            "loss": slow + 0.5 * fast + 0.25 * commit,
            "slow": slow, "fast": fast, "commit": commit,
        }  # fmt: skip

    def ctc(self, logits: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
        sizes = torch.tensor([len(t) for t in targets], device=logits.device)
        log = logits.log_softmax(-1).transpose(0, 1)
        loss = F.ctc_loss(log, torch.cat(targets).to(log.device), lengths, sizes, reduction="none",
                          zero_infinity=True)  # fmt: skip
        return (loss / sizes).mean()

    def quantize(self, i: int, pooled: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Straight-through quantized frames and the commitment loss; continuous at first."""
        real = torch.arange(pooled.shape[1], device=self.device)[None] < lengths[:, None]
        flat = pooled[real].detach()
        if i < QUANTIZE_FROM:
            self.recent = [*self.recent[-15:], flat]
            return pooled, pooled.new_zeros(())
        if i == QUANTIZE_FROM:
            self.model.codebook.fill(
                self.model.encoder.codebook.weight, torch.cat((*self.recent, flat))
            )
        encoder = self.model.encoder
        codes = encoder.quantize(pooled)
        rows = encoder.codebook.weight[codes].clone()
        self.model.codebook.update(encoder.codebook.weight, flat, codes[real])
        scale = flat.square().mean()
        commit = (pooled - rows)[real].square().mean() / scale
        share = min(1.0, (i - QUANTIZE_FROM + 1) / BLEND)
        return pooled + share * (rows - pooled).detach(), commit

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out voices and phrasings: letter and word error of codes -> text, codes in use."""
        if not self.held_out:
            return {}
        wrong, words, used = 0, 0, set()
        for utterance, pcm in self.held_out:
            mels, lengths = self.mels([pcm])
            codes = self.model.encoder.quantize(self.model.encoder(mels))
            used.update(codes[0].tolist())
            rows = self.model.encoder.codebook.weight[codes]
            heard = greedy(self.model.read_codes(rows, lengths)[0])
            missed, said = word_errors(heard, utterance.text)
            wrong, words = wrong + missed, words + said
        return {"wer": wrong / max(words, 1), "codes_used": float(len(used))}


def main() -> None:
    s = settings(__doc__ or "", steps=4000, batch=12, learning_rate=1e-3)
    model = Recognizer(initialised_encoder(s.work)).to(s.device)
    trainer = Trainer(s.work, model, s.batch)
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    ids = {id(p) for p in encoder}
    rest = [p for p in model.parameters() if id(p) not in ids and p.requires_grad]
    groups = [{"params": encoder, "lr": 0.2}, {"params": rest, "lr": 1.0}]
    plan = Plan(name="tokenizer", steps=s.steps, learning_rate=s.learning_rate)
    train(plan, model, trainer.step, s.work, trainer.evaluate, groups)


if __name__ == "__main__":
    main()
