"""A small speech recognizer that shows how much of the words a representation holds.

One linear layer over a window of five neighbouring rows writes `STEPS` letters or blanks for each
row (12.5 rows a second are fewer than English has letters), trained with connectionist temporal
classification. It has no memory and no language model: what it spells it found in those rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .spelling import BLANK, Alphabet, steps_needed

Floats = NDArray[np.float32]
STEPS = 4  # of each row
REACH = 2  # rows looked at before and after


@dataclass(frozen=True, slots=True)
class Training:
    """How the probe is trained; the same for every representation."""

    steps: int
    batch: int = 32
    rate: float = 3e-3
    decay: float = 0.05
    dropout: float = 0.2  # of the inputs
    seed: int = 0


class Probe(nn.Module):
    """Rows [B, n, C] -> log-probabilities [B, STEPS n, symbols]."""

    mean: Tensor
    spread: Tensor

    def __init__(self, rows: Sequence[Floats], symbols: int, dropout: float) -> None:
        """Scale inputs by the mean and spread of `rows`, [n, C] each."""
        super().__init__()
        every = torch.from_numpy(np.concatenate(rows))
        self.register_buffer("mean", every.mean(0))
        self.register_buffer("spread", every.std(0).clamp_min(1e-6))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Conv1d(every.shape[1], STEPS * symbols, 2 * REACH + 1, padding=REACH)
        self.symbols = symbols

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Rows past `lengths` [B] may hold anything."""
        x = self.dropout((x - self.mean) / self.spread)
        inside = torch.arange(x.shape[1]) < lengths[:, None]
        y = self.linear((x * inside[..., None]).transpose(1, 2)).transpose(1, 2)
        return y.reshape(len(x), -1, self.symbols).log_softmax(-1)


def fits(rows: int, labels: NDArray[np.int64]) -> bool:
    """Whether so many rows have the steps to write these letters."""
    return 0 < steps_needed(labels) <= STEPS * rows


def train(
    rows: Sequence[Floats],
    labels: Sequence[NDArray[np.int64]],
    symbols: int,
    training: Training,
    note: Callable[[int, int], None],
) -> Probe:
    """Learn to spell `labels` from `rows` [n, C]; each pair must fit. Deterministic."""
    torch.manual_seed(training.seed)
    rng = np.random.default_rng(training.seed)
    probe = Probe(rows, symbols, training.dropout).train()
    optimizer = torch.optim.AdamW(probe.parameters(), training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, training.steps)
    for step in range(training.steps):
        chosen = rng.choice(len(rows), min(training.batch, len(rows)), replace=False)
        x, lengths = _padded([rows[i] for i in chosen])
        targets = [torch.from_numpy(labels[i]) for i in chosen]
        loss = F.ctc_loss(
            probe(x, lengths).transpose(0, 1),
            torch.cat(targets),
            STEPS * lengths,
            torch.tensor([len(t) for t in targets]),
            blank=BLANK,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        note(step + 1, training.steps)
    return probe.eval()


def spell(probe: Probe, rows: Sequence[Floats], alphabet: Alphabet) -> list[str]:
    """What the probe reads in each of `rows` [n, C]: its best guess at every step."""
    read = []
    with torch.no_grad():
        for one in rows:
            x, lengths = _padded([one])
            read.append(alphabet.decode(probe(x, lengths)[0].argmax(-1).numpy()))
    return read


def _padded(rows: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """[B, longest, C] and lengths [B]."""
    tensors = [torch.from_numpy(one) for one in rows]
    lengths = torch.tensor([len(one) for one in tensors])
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
