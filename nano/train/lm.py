"""Stage 5, the language model, in the paper's stages: text first, then speech, then both.

    python -m nano.train.lm --steps 3000          (after the codes stage)

Text: text -> text trains trunk and text branch. Align: these are frozen, the speech embedding and
the speech branch learn to join them. Both: everything trains, on all four tasks and on writing
spoken questions down, which is what makes it hear words and not whole sentences. `--batch` is in
grid rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from antiphon.export.reference.lm import MossSpeechLM

from ..text import build
from .corpus import Rng
from .dialogues import DialogueMaker, Rows, Scored, gather, lm_config
from .loop import Plan, settings, train

TEXT_SHARE, ALIGN_SHARE = 0.15, 0.10  # of all steps; the rest trains both
TASKS = ("spoken", "written", "transcribed")  # replies, and the share of the batches of each
SHARES = (0.55, 0.25, 0.20)
MOST_TURNS = 5  # of a dialogue; the ring holds four whole exchanges, or more interrupted ones


class Trainer:
    """Batches, losses and evaluation of this stage."""

    def __init__(self, model: MossSpeechLM, maker: DialogueMaker, rows: int, steps: int) -> None:
        self.model, self.maker, self.rows = model, maker, rows
        self.device = next(model.parameters()).device
        self.align_from = int(steps * TEXT_SHARE)
        self.both_from = self.align_from + int(steps * ALIGN_SHARE)

    def freeze(self, frozen: bool) -> None:
        """Trunk, text embedding and text branch: everything the text stage trained."""
        m = self.model.model
        for module in (m.shared_block, m.text_block, m.text_norm, m.embed_tokens):
            module.requires_grad_(not frozen)
        self.model.text_lm_head.requires_grad_(not frozen)

    def draw(self, i: int, rng: Rng) -> tuple[str, float]:
        """Task and share of spoken questions of batch i."""
        if i < self.align_from:
            return "written", 0.0
        if i < self.both_from:
            return "spoken", 0.7
        return str(rng.choice(TASKS, p=SHARES)), 0.85

    def batch(self, task: str, spoken_share: float, rng: Rng) -> list[Scored]:
        """Dialogues of as many turns each, 1 to 5, until the batch holds enough rows."""
        made: list[Scored] = []
        total, turns = 0, int(rng.integers(1, MOST_TURNS + 1))
        while total < self.rows:
            if task == "transcribed":
                made.append(self.maker.transcription(turns, rng))
            else:
                made.append(self.maker.dialogue(task == "spoken", turns, rng, spoken_share))
            total += len(made[-1][0])
        return made

    def step(self, i: int) -> dict[str, Tensor]:
        if i in (self.align_from, self.both_from) or not hasattr(self, "_froze"):
            self.freeze(self.align_from <= i < self.both_from)
            self._froze = True
        rng = np.random.default_rng((4, i))
        task, spoken_share = self.draw(i, rng)
        grid, target, scored = collate(self.batch(task, spoken_share, rng), self.device)
        loss = self.loss(grid, target, scored, task == "spoken")
        return {"loss": loss, task: loss}

    def loss(self, grid: Tensor, target: Tensor, scored: Tensor, spoken: bool) -> Tensor:
        """Cross-entropy of the reply rows; of both heads where a spoken reply ends."""
        hidden, _ = self.model.model.shared_block(self.model.embed(grid))
        pad = self.model.config.modality_pad_token_id
        if not spoken:
            logits, _ = self.model.text_logits(hidden)
            return F.cross_entropy(logits[scored], target[..., 0][scored])
        logits, _ = self.model.audio_logits(hidden)
        codes = scored & (target[..., 0] == pad)
        loss = F.cross_entropy(logits[codes], target[..., 1][codes])
        ends = scored & (target[..., 0] != pad)  # <|im_end|> after the end of speech
        words, _ = self.model.text_logits(hidden)
        return loss + 0.05 * F.cross_entropy(words[ends], target[..., 0][ends])

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out voices and phrasings: share of replies whose every row is the greedy choice."""
        m = self.maker.material
        questions = m.held_out[:150]
        spoken_right = later_right = written_right = text_right = 0
        rng = np.random.default_rng(4)
        for meaning, codes, text in questions:
            turn = self.maker.spoken_turn(codes)
            spoken_right += self.exact(turn, meaning, spoken=True)
            before = self.maker.turns(True, 3, rng, 1.0)
            later_right += self.exact(turn, meaning, spoken=True, before=before)
            written_right += self.exact(turn, meaning, spoken=False)
            typed = self.maker.prompt.text_turn("user", text)
            text_right += self.exact(typed, meaning, spoken=False)
        n = max(len(questions), 1)
        return {
            "speech_to_speech": spoken_right / n,
            "later_speech_to_speech": later_right / n,
            "speech_to_text": written_right / n,
            "text_to_text": text_right / n,
        }

    def exact(
        self, question: Rows, meaning: str, *, spoken: bool, before: Sequence[Scored] = ()
    ) -> bool:
        """Greedy decoding gives exactly the taught reply (teacher forcing is equivalent here)."""
        rows, marks = self.maker.exchange(question, meaning, spoken, before)
        grid, target, scored = collate([(rows, marks)], self.device)
        hidden, _ = self.model.model.shared_block(self.model.embed(grid))
        head = self.model.audio_logits if spoken else self.model.text_logits
        best = head(hidden)[0].argmax(-1)
        if spoken:
            scored = scored & (target[..., 0] == self.model.config.modality_pad_token_id)
        return bool((best == target[..., int(spoken)])[scored].all())


def collate(dialogues: list[Scored], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [B, T, 2], targets [B, T, 2] (the next row) and which are scored [B, T]."""
    longest = max(len(r) for r, _ in dialogues)
    grid = torch.zeros(len(dialogues), longest, 2, dtype=torch.long)
    scored = torch.zeros(len(dialogues), longest, dtype=torch.bool)
    for b, (rows, marks) in enumerate(dialogues):
        grid[b, : len(rows)] = torch.from_numpy(rows)
        scored[b, : len(rows)] = torch.from_numpy(marks)
    grid, scored = grid.to(device), scored.to(device)
    return grid[:, :-1], grid[:, 1:], scored[:, 1:]


def initialise(model: MossSpeechLM) -> None:
    """Normal weights; those that write to the residual stream are scaled down by the depth."""
    depth = model.config.num_hidden_layers
    for name, p in model.named_parameters():
        if p.dim() > 1:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(p, std=0.02 / (2 * depth) ** 0.5 if residual else 0.04)


def main() -> None:
    s = settings(__doc__ or "", steps=3000, batch=2400, learning_rate=1.5e-3)
    path = s.work / "train" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.exists() else build(path)
    model = MossSpeechLM(lm_config(tokenizer))
    initialise(model)
    maker = DialogueMaker(gather(s.work), tokenizer)
    trainer = Trainer(model.to(s.device), maker, s.batch, s.steps)
    plan = Plan(name="lm", steps=s.steps, learning_rate=s.learning_rate)
    train(plan, model, trainer.step, s.work, trainer.evaluate)


if __name__ == "__main__":
    main()
