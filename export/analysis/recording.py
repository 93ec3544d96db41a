"""What the experiments are fed with, and how sure their averages are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, unread, and the words that are said in it."""

    name: str
    text: str
    read: Callable[[], NDArray[np.float32]]  # samples [S] at 16 kHz; may raise AudioError


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(numerators: ArrayLike, denominators: ArrayLike | None = None) -> Estimate:
    """Sum over sum, in other words a mean without `denominators`; bootstrap over the items [N]."""
    above = np.asarray(numerators, np.float64)
    below = np.ones_like(above) if denominators is None else np.asarray(denominators, np.float64)
    draws = np.random.default_rng(0).integers(0, len(above), (_DRAWS, len(above)))
    low, high = np.percentile(above[draws].sum(1) / below[draws].sum(1), (2.5, 97.5))
    return Estimate(float(above.sum() / below.sum()), float(low), float(high))
