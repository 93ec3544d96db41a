"""How far two models are apart where one of them would have drawn the next id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from antiphon.runtime.manifest import SpecialTokens

from .dialogues import SPEECH

Reals = NDArray[np.float64]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class RowScore:
    """One row of a reply, drawn by one head."""

    kl: float  # nats, KL(reference || candidate) over the ids that may be drawn
    same: bool  # both find the same id likeliest
    end: float  # probability, to the reference, that the reply ends with this row
    end_measured: float  # the same, to the candidate


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def log_probabilities(logits: ArrayLike, head: str, tokens: SpecialTokens) -> Reals:
    """Logits [V] -> log probabilities [V] of the ids this head may draw, -inf for the others.

    Temperature 1, no repetition penalty; which ids are legal says `antiphon.runtime.sampling`.
    """
    scores = np.array(logits, np.float64).reshape(-1)
    if head == SPEECH:
        scores[tokens.eosp + 1 :] = -np.inf
    else:
        scores[tokens.modality_pad] = -np.inf
    scores -= scores.max()
    return np.asarray(scores - np.log(np.exp(scores).sum()))


def compare_row(
    exact: ArrayLike, measured: ArrayLike, head: str, tokens: SpecialTokens
) -> RowScore:
    """Two rows of logits [V] of the same head, the reference's first."""
    p, q = (log_probabilities(logits, head, tokens) for logits in (exact, measured))
    legal = np.isfinite(p)
    kl = float((np.exp(p[legal]) * (p[legal] - q[legal])).sum())
    ends = [tokens.eosp] if head == SPEECH else list(tokens.stops)
    return RowScore(
        kl=max(0.0, kl),  # rounding of equal rows
        same=bool(p.argmax() == q.argmax()),
        end=float(np.exp(p[ends]).sum()),
        end_measured=float(np.exp(q[ends]).sum()),
    )


def interval(groups: Sequence[Sequence[float]]) -> Interval | None:
    """Mean of all values; whole groups (dialogues) are resampled, as their rows are no strangers.

    None where there is no value.
    """
    kept = [group for group in groups if len(group)]
    if not kept:
        return None
    sums = np.array([float(np.sum(group)) for group in kept])
    counts = np.array([len(group) for group in kept])
    drawn = np.random.default_rng(0).integers(0, len(kept), (_RESAMPLES, len(kept)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))
