"""Stage 4, the flow: codes of the reply voice -> mel, chunk-masked, with a voice prompt.

    python -m nano.train.flow --steps 6000          (after the tokenizer stage)

Optimal-transport flow matching on the velocity, plus an L1 prior on mu. Conditions are dropped for
guidance. Sequences are prompt + reply, as at run time; the loss is taken on the reply.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from antiphon.export.reference.config import FlowConfig
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.flow_encoder import chunk_mask
from antiphon.export.reference.mel import flow_mel
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

from .corpus import load_index, read
from .loop import Plan, settings, train
from .tokens import trained_tokenizer
from .vocoder import Averaged

CONFIG = FlowConfig(
    vocab_size=512,
    width=128,
    heads=2,
    ffn=512,
    blocks=2,
    up_blocks=2,
    channels=128,
    transformer_heads=2,
    transformers=1,
    mid_blocks=4,
)
PROMPT_REPLY = "add_five_six_r0"  # the voice prompt is the start of this rendition
PROMPT_CODES = 10
DROP_CONDITIONS = 0.15
RATIO = CONFIG.mel_per_token


def speaker_vector() -> Tensor:
    """The reply voice's fixed 192-d vector: nano has no speaker encoder."""
    generator = torch.Generator().manual_seed(192)
    return torch.randn(CONFIG.speaker_dim, generator=generator)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One rendition of a reply: codes [N] and mel [M, 4N]."""

    name: str
    words: tuple[str, ...]
    codes: Tensor
    mel: Tensor


@torch.no_grad()
def spoken_replies(work: Path, tokenizer: SpeechTokenizer, prefix: str = "") -> list[Spoken]:
    """Codes and mel of the renditions named `prefix`…, aligned: 4 mel frames per code."""
    made = []
    found = [u for u in load_index(work, "replies") if u.path.name.startswith(prefix)]
    for utterance in sorted(found, key=lambda u: u.path.name):
        codes = tokenizer.encode(torch.from_numpy(read(utterance, 16000)))
        pcm = torch.from_numpy(read(utterance, 24000))
        missing = len(codes) * 1920 - len(pcm)
        pcm = F.pad(pcm, (0, max(0, missing)))[: len(codes) * 1920]
        words = tuple(re.findall(r"[a-z]+", utterance.text.lower()))
        made.append(Spoken(utterance.path.stem, words, codes, flow_mel(pcm[None])[0]))
    return made


def shares(replies: list[Spoken]) -> NDArray[np.float64]:
    """How often each reply is drawn [N]: the rarer its words, the oftener.

    Two replies of three are sums; drawn alike, words of the others are heard too seldom to be said.
    """
    count = Counter(word for reply in replies for word in reply.words)
    weights = np.array([np.mean([count[word] ** -0.5 for word in r.words]) for r in replies])
    found: NDArray[np.float64] = weights / weights.sum()
    return found


class Trainer:
    """Batches, losses and evaluation of this stage."""

    def __init__(self, work: Path, model: Averaged[Flow], batch: int) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        replies = spoken_replies(work, trained_tokenizer(work))
        if not replies:
            raise SystemExit("no replies yet: python -m nano.data.make replies")
        self.held_out = [r for r in replies if r.name.endswith("_r1")][::14][:24]
        names = {r.name for r in self.held_out}
        self.replies = [r for r in replies if r.name not in names]
        self.shares = shares(self.replies)
        self.prompt = next(r for r in replies if r.name == PROMPT_REPLY)
        self.embedding = speaker_vector().to(self.device)

    def start_at_the_mean(self) -> None:
        """Let mu and the velocity begin at the mean mel instead of zero."""
        mean = torch.cat([r.mel for r in self.replies], 1).mean(1)
        live = self.model.live
        live.encoder_proj.bias.data.copy_(mean)
        velocity = live.decoder.estimator.final_proj.bias
        assert velocity is not None
        velocity.data.copy_(mean)
        self.model.kept.load_state_dict(live.state_dict())

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, int]:
        """Codes [N], mel [M, 4N] of prompt + reply, and the prompt's length in codes."""
        reply = self.replies[int(rng.choice(len(self.replies), p=self.shares))]
        if rng.random() < 0.6:
            prompt, size = self.prompt, PROMPT_CODES
        else:
            prompt = self.replies[int(rng.integers(len(self.replies)))]
            size = min(5 * int(rng.integers(0, 4)), len(prompt.codes) // 5 * 5)
        codes = torch.cat((prompt.codes[:size], reply.codes))
        return codes, torch.cat((prompt.mel[:, : size * RATIO], reply.mel), 1), size

    def batch_of(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """codes [B, N], mel, cond [B, M, 4N], visible [B, 1, N, N], scored frames [B, 1, 4N]."""
        drawn = [self.draw(rng) for _ in range(self.batch)]
        longest = max(len(c) for c, _, _ in drawn)
        codes = torch.full((self.batch, longest), -1)  # padding
        mel = torch.zeros(self.batch, CONFIG.mel_bins, longest * RATIO)
        cond = torch.zeros_like(mel)
        scored = torch.zeros(self.batch, 1, longest * RATIO)
        for b, (c, m, p) in enumerate(drawn):
            codes[b, : len(c)], mel[b, :, : m.shape[1]] = c, m
            cond[b, :, : p * RATIO] = m[:, : p * RATIO]
            scored[b, :, p * RATIO : m.shape[1]] = 1.0
        own = torch.eye(longest, dtype=torch.bool)
        visible = chunk_mask(longest, CONFIG.chunk_tokens) & (codes >= 0)[:, None, :] | own
        made = (codes, mel, cond, visible[:, None], scored)
        return tuple(x.to(self.device) for x in made)

    def step(self, i: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((3, i))
        codes, mel, cond, visible, scored = self.batch_of(rng)
        live, size = self.model.live, self.batch
        mu = live.encoder_proj(encode(live, codes, visible)).transpose(1, 2)
        weight = scored / scored.sum() / CONFIG.mel_bins
        prior = ((mu - mel).abs() * weight).sum()
        t = 1 - torch.cos(torch.rand(size, device=self.device) * 0.5 * np.pi)
        noise = torch.randn_like(mel)
        x = (1 - t[:, None, None]) * noise + t[:, None, None] * mel
        keep = (torch.rand(size, device=self.device) > DROP_CONDITIONS).float()[:, None, None]
        speaker = live.speaker(self.embedding[None]).expand(size, -1) * keep[:, 0]
        frames = visible.repeat_interleave(RATIO, 2).repeat_interleave(RATIO, 3)
        bias = torch.zeros_like(frames, dtype=mel.dtype).masked_fill(~frames, -1e10)
        v = live.velocity(x, t, (mu * keep, speaker, cond * keep), bias)
        flow = ((v - (mel - noise)).abs() * weight).sum()
        self.model.average()
        return {"loss": flow + 0.5 * prior, "flow": flow, "prior": prior}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Renditions never trained on: mel L1 of the streamed decode with the voice's prompt."""
        kept = self.model.kept
        codes, mel = self.prompt.codes[:PROMPT_CODES], self.prompt.mel[:, : PROMPT_CODES * RATIO]
        voice = (codes.to(self.device), mel.to(self.device), self.embedding)
        errors = []
        for r in self.held_out[:12]:
            made = kept.generate(r.codes.to(self.device), voice, chunk=CONFIG.chunk_tokens)
            errors.append(float((made.cpu() - r.mel).abs().mean()))
        return {"held_out_mel": float(np.mean(errors))}


def encode(flow: Flow, codes: Tensor, visible: Tensor) -> Tensor:
    """`FlowEncoder.forward` for padded sequences: codes [B, N], -1 where there is none."""
    e = flow.encoder
    x = e.embed(flow.input_embedding(codes.clamp_min(0))) * (codes >= 0)[..., None]
    x = e.pre_lookahead_layer(x, x.new_zeros(len(x), CONFIG.lookahead_tokens, x.shape[2]))
    for block in e.encoders:
        x = block(x, visible)
    x = e.up_embed(e.up_layer(x))
    wide = visible.repeat_interleave(RATIO, 2).repeat_interleave(RATIO, 3)
    for block in e.up_encoders:
        x = block(x, wide)
    return e.after_norm(x)


def main() -> None:
    s = settings(__doc__ or "", steps=6000, batch=16, learning_rate=1e-3)
    flow = Flow(CONFIG)
    nn.init.normal_(flow.input_embedding.weight, std=1.0)
    model = Averaged(flow).to(s.device)
    trainer = Trainer(s.work, model, s.batch)
    trainer.start_at_the_mean()
    plan = Plan(name="flow", steps=s.steps, learning_rate=s.learning_rate)
    groups = [{"params": list(model.live.parameters()), "lr": 1.0}]
    train(plan, model, trainer.step, s.work, trainer.evaluate, groups)


if __name__ == "__main__":
    main()
