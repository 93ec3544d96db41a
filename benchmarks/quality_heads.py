"""Both heads of many bundles along the same replies, those of one reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from antiphon.export.proof.dialogues import Dialogue, Floats, Question, Respondent, kinds
from antiphon.export.proof.heads import RowScore, compare_row, interval
from antiphon.export.proof.report import HEADS
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError
from nano.train.corpus import development, load_index, read

RATE_HZ = 16_000
_RESAMPLES = 10_000

Rows = dict[str, list[list[RowScore]]]  # by head: those of each dialogue


def asked(work: Path, count: int) -> list[Question]:
    """Held-out questions, evenly spread over those that training never looked at.

    Raises ConfigError where there are none.
    """
    if not (everything := load_index(work, "eval")):
        raise ConfigError(
            f"{work}: no held-out questions there; make them with python -m nano.data.make eval"
        )
    looked_at = {u.path for u in development(everything)}
    unseen = [u for u in everything if u.path not in looked_at]
    chosen = unseen[:: max(1, len(unseen) // count)][:count]
    return [Question(u.path.stem, read(u, RATE_HZ), u.text) for u in chosen]


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Every question in every way it can be put, and the reference's logits [V] along its reply."""

    asked: list[tuple[Dialogue, list[Floats]]]

    @classmethod
    def of(cls, reference: Bundle, questions: Sequence[Question]) -> Self:
        """Let the reference hear and answer."""
        respondent, found = Respondent(reference), []
        for question in questions:
            codes = None if question.pcm is None else respondent.hear(question.pcm)
            found += [respondent.ask(question, *kind, codes) for kind in kinds(question)]
        return cls(found)


def read_back(bundle: Bundle, dialogues: Dialogues) -> Rows:
    """What a bundle would have drawn along the reference's replies."""
    respondent, tokens = Respondent(bundle), bundle.manifest.tokens
    found: Rows = {head: [] for head in HEADS}
    for dialogue, exact in dialogues.asked:
        spoken = dialogue.spoken(tokens.modality_pad)
        for rows in found.values():
            rows.append([])
        for is_speech, p, q in zip(spoken, exact, respondent.replay(dialogue), strict=True):
            head = HEADS[0] if is_speech else HEADS[1]
            found[head][-1].append(compare_row(p, q, head, tokens))
    return found


def scores(rows: Rows) -> dict[str, Any]:
    """Agreement and KL of each head with 95 % intervals, dialogues resampled."""
    found: dict[str, Any] = {}
    for head, dialogues in rows.items():
        kl = interval([[row.kl for row in dialogue] for dialogue in dialogues])
        same = interval([[float(row.same) for row in dialogue] for dialogue in dialogues])
        if kl and same:
            count = sum(map(len, dialogues))
            found[head] = {"rows": count, "agreement": asdict(same), "kl": asdict(kl)}
    return found


def better(mine: Rows, plain: Rows) -> dict[str, dict[str, float]]:
    """By how much of `plain`'s KL mine is less, by head; the same dialogues resampled for both."""
    found = {}
    for head in HEADS:
        sums = np.array([[sum(r.kl for r in d) for d in rows[head] if d] for rows in (mine, plain)])
        drawn = np.random.default_rng(0).integers(0, sums.shape[1], (_RESAMPLES, sums.shape[1]))
        less = 1 - sums[0][drawn].sum(1) / sums[1][drawn].sum(1)
        low, high = np.percentile(less, (2.5, 97.5))
        found[head] = {
            "kl_less": float(1 - sums[0].sum() / sums[1].sum()),
            "low": float(low),
            "high": float(high),
        }
    return found
